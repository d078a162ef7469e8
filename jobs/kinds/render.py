"""RENDER: a video from a prompt. Who draws it is an engine: `preview` needs no GPU, a setting names another."""

import math
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from rest_framework import serializers

from jobs.engines import media, mp4, preview
from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import InputField, Kind, Limits, Run, register
from jobs.kinds.fields import EvenField, NumberField, TextField, WholeField

ENGINES = {  # RENDER_ENGINE: the module that holds its `render`, or its `configured`, which takes the settings
    "preview": "jobs.engines.preview",
    "runpod": "jobs.engines.runpod",
}


class Engine(Protocol):
    """What an engine module offers: draw validated params into a file in `run.workdir` and return its path."""

    def render(self, run: Run, params: dict[str, Any], image: Path | None = None) -> Path: ...


def engine() -> Engine:
    """The engine that RENDER_ENGINE names. JobError(config_error) if there is none of that name."""
    name = settings.JOBSITE["RENDER_ENGINE"]
    if name not in ENGINES:
        raise JobError(ErrorCode.config_error, f"There is no render engine named {name}.")
    module = import_module(ENGINES[name])
    return module.configured(settings.JOBSITE) if hasattr(module, "configured") else module


@register
class Render(Kind):
    """Draw a prompt, over an image if one is given, into one H.264 video. One output: `video.mp4`."""

    name = "RENDER"
    limits = Limits(run=1800, stall=60)  # seconds
    tiers = ("1K", "2K", "4K")

    @property
    def queue(self) -> str:  # type: ignore[override]
        """`remote` where RunPod draws: those slots only wait, and `-c` is how many jobs RunPod has at once."""
        return "remote" if settings.JOBSITE["RENDER_ENGINE"] == "runpod" else "gpu"

    class Params(serializers.Serializer):
        prompt = TextField(max_length=2000)
        image = InputField(accepts=("image",), required=False, help_text="The picture to draw over.")
        seconds = NumberField(min_value=1, max_value=60, default=4.0)
        fps = WholeField(min_value=8, max_value=60, default=24, label="Pictures a second")
        width = EvenField(min_value=64, max_value=1920, default=640, help_text="Pixels, even.")
        height = EvenField(min_value=64, max_value=1920, default=360, help_text="Pixels, even.")
        seed = WholeField(min_value=0, max_value=2**31 - 1, default=0, help_text="The same seed draws the same.")

    def price(self, params: dict[str, Any]) -> int:
        return settings.JOBSITE["PRICE_RENDER_SECOND"] * math.ceil(params["seconds"])

    def tier(self, params: dict[str, Any]) -> str:
        longest = max(params["width"], params["height"])
        return "1K" if longest <= 1280 else "2K" if longest <= 2560 else "4K"

    def run(self, run: Run) -> None:
        image = None
        if run.params.get("image"):
            image = run.input(run.params["image"])
            if not (media.sniff(image) or "").startswith("image/"):
                raise JobError(ErrorCode.bad_input, "image is not a picture that can be read here.")
            if media.probe(image, label="image", stop=run.check).video is None:
                raise JobError(ErrorCode.bad_input, "image holds no picture.")
        run.progress(0.0, "drawing")
        video = engine().render(run, run.params, image)
        self.verify(video, run.params)
        run.output(video, "video.mp4")

    def verify(self, video: Path, params: dict[str, Any]) -> None:
        """Raise JobError(ffmpeg_error) unless the video has every picture at its size: code 0 does not prove that."""
        try:
            track = mp4.read(video).video
        except (mp4.Unsupported, mp4.Cut, OSError) as wrong:
            raise JobError(ErrorCode.ffmpeg_error, "The video came out unreadable.") from wrong
        wanted = (preview.frame_count(params), params["width"], params["height"])
        found = (track.count, track.width, track.height) if track else (0, 0, 0)
        if found != wanted:
            raise JobError(
                ErrorCode.ffmpeg_error,
                "The video came out with {} pictures of {}x{} instead of {} of {}x{}.".format(*found, *wanted),
            )
