"""ENHANCE: a picture brought to 1024, 2048 or 4096 pixels: denoised, enlarged or reduced, sharpened."""

from pathlib import Path
from typing import Any

from django.conf import settings
from rest_framework import serializers

from jobs.engines import media, pictures, runpod
from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import InputField, Kind, Limits, Run, register
from jobs.kinds.fields import NumberField, WholeField

SIDES = {"1K": 1024, "2K": 2048, "4K": 4096}  # pixels of the longer side
LIMITS = {  # a model on a CPU needs minutes for 4K; libvips needs seconds
    "1K": Limits(run=300, stall=60),
    "2K": Limits(run=900, stall=60),
    "4K": Limits(run=1800, stall=120),
}
ENDINGS = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/tiff": "tif"}


def model() -> str:
    """The super-resolution model's path, empty for plain resampling, as ENHANCE_ENGINE and UPSCALER_MODEL say.

    JobError(config_error) for an unknown engine and for a model that is not there.
    """
    engine, path = settings.JOBSITE["ENHANCE_ENGINE"], settings.JOBSITE["UPSCALER_MODEL"]
    if engine in ("resample", "runpod") or (engine == "auto" and not path):
        return ""
    if engine not in ("auto", "model"):
        raise JobError(ErrorCode.config_error, f"There is no enhance engine named {engine}.")
    if not path or not Path(path).is_file():
        raise JobError(ErrorCode.config_error, "The super-resolution model that UPSCALER_MODEL names is not there.")
    return str(Path(path).absolute())


@register
class Enhance(Kind):
    """One picture, its longer side as long as its tier says. One output: `picture.jpg`, `.png`, `.webp` or `.tif`.

    It stands upright, keeps its alpha and its colour profile (CMYK becomes sRGB), and loses all other metadata.
    """

    name = "ENHANCE"
    limits = LIMITS["4K"]
    tiers = tuple(SIDES)

    class Params(serializers.Serializer):
        image = InputField(accepts=tuple(pictures.LOADERS))
        tier = serializers.ChoiceField(choices=list(SIDES), default="2K", label="Size")
        format = serializers.ChoiceField(choices=["keep", "jpeg", "png", "webp"], default="keep")
        quality = WholeField(min_value=1, max_value=100, default=90, help_text="Of JPEG and WebP.")
        denoise = NumberField(min_value=0, max_value=1, default=0.5)
        sharpen = NumberField(min_value=0, max_value=1, default=0.25)

    @property
    def queue(self) -> str:  # type: ignore[override]
        """`remote` where RunPod does it: those slots only wait."""
        return "remote" if settings.JOBSITE["ENHANCE_ENGINE"] == "runpod" else "cpu"

    def price(self, params: dict[str, Any]) -> int:
        return settings.JOBSITE[f"PRICE_ENHANCE_{params['tier']}"]

    def tier(self, params: dict[str, Any]) -> str:
        return params["tier"]

    def limits_for(self, params: dict[str, Any]) -> Limits:
        return LIMITS[params["tier"]]

    def run(self, run: Run) -> None:
        run.progress(0.0, "looking at the picture")
        params, network = run.params, model()
        path = run.input(params["image"])
        content_type = media.sniff(path)
        if content_type not in pictures.LOADERS:
            raise JobError(ErrorCode.bad_input, "image is not a JPEG, PNG, WebP or TIFF picture.")
        as_type = content_type if params["format"] == "keep" else f"image/{params['format']}"
        made = run.workdir / f"picture.{ENDINGS[as_type]}"
        task = {
            "path": str(path.absolute()),
            "content_type": content_type,
            "label": "image",
            "into": made.name,
            "as_type": as_type,
            "side": SIDES[params["tier"]],
            "quality": params["quality"],
            "denoise": params["denoise"],
            "sharpen": params["sharpen"],
            "model": network,
        }
        run.progress(0.02, "enhancing")
        memory = settings.JOBSITE["MEDIA_MEMORY_BYTES"] * (2 if network else 1)
        if settings.JOBSITE["ENHANCE_ENGINE"] == "runpod":
            wanted = {name: task[name] for name in ("content_type", "as_type", "side", "quality", "denoise", "sharpen")}
            size = runpod.configured(settings.JOBSITE).enhance(run, wanted, path, made)
        else:
            said = run.tool("jobs.engines.upscale", task, memory_bytes=memory, start=0.02, end=0.99)
            size = said["width"], said["height"]
        if max(size) != task["side"] or media.sniff(made) != as_type:
            raise JobError(ErrorCode.processing_error, "The picture came out wrong.")
        run.output(made, made.name, as_type)
