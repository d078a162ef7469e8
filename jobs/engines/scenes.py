"""One decode pass over a video: its cuts, pictures of it at regular times and after each cut, its loudness.

`one_pass` gives FFmpeg's arguments, the readers what the pass left in the work folder. Cuts are found by the score of
FFmpeg's `select` (libavfilter/f_select.c), the measure of `scdet`: the mean change of all samples of a picture against
the one before, less the change that there was already. Fades and wipes are not seen.
"""

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

CUT_SCORE = 0.255  # scdet's own threshold of 10 %, as a share of 100 of 255 steps
MERGE_SECONDS = 0.5  # a cut so soon after another is the same one: a flash, or a picture in between
LONGER_SIDE = 640  # pixels of the pictures kept
SAMPLES = 240  # regular pictures, at most
SHORTEST_STEP = 0.5  # seconds between two of them
PICTURES_MOST = 5000  # kept on disk, those after cuts included; cuts are found beyond it
RANGE_SECONDS = 4.0  # of sound: of less than five windows of 3 s FFmpeg makes a range that is none
FRAMES, LOUDNESS, SPEECH = "frames.txt", "loudness.txt", "speech.wav"
JPEG = ["-q:v", "3", "-pix_fmt", "yuvj420p"]  # quality: 2 is best, 31 worst


@dataclass(frozen=True)
class Frame:
    """A picture that the pass kept: place in the order, seconds from the file's start, score (0.0 to 1.0)."""

    number: int
    at: float
    score: float

    @property
    def file(self) -> str:
        return f"frame-{self.number + 1:05d}.jpg"


@dataclass(frozen=True)
class Scene:
    """From one cut to the next, in seconds from the file's start; `end` is not in it any more."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Loudness:
    """EBU R128: integrated loudness in LUFS, range in LU, true peak in dBTP; None: not measurable."""

    integrated: float | None
    range: float | None
    true_peak: float | None


# --- the pass ------------------------------------------------------------------------------------------------------


def step(seconds: float) -> float:
    """Seconds between two regular pictures of a video of `seconds`."""
    return max(SHORTEST_STEP, seconds / SAMPLES)


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """Even width and height with the same shape whose longer side is at most `longest` pixels; never enlarged."""
    factor = min(1.0, longest / max(width, height))
    return max(2, round(width * factor / 2) * 2), max(2, round(height * factor / 2) * 2)


def one_pass(source: list[str], size: tuple[int, int], seconds: float, *, sound: bool, speech: bool) -> list[str]:
    """Arguments that read `source` (`ffmpeg.source`) once and write all of it into the work folder.

    `size` is the pictures', as shown; `sound` says whether there is any, `speech` whether it is also wanted as a WAV
    of 16 kHz mono. A size that changes within the video is scaled; without `-reinit_filter` the pass would begin anew.
    Sound that changes its form does make its meter begin anew: it cannot take what it was not set up for.
    """
    width, height = size
    cut = rf"gt(scene\,{CUT_SCORE})*gte(t-ld(0)\,{MERGE_SECONDS})"  # register 0: when the last cut was
    wanted = rf"isnan(prev_selected_t)+gte(t-prev_selected_t\,{step(seconds):.3f})+if({cut}\,st(0\,t)*0+1\,0)"
    graph = (
        f"[0:V:0]scale={width}:{height}:flags=bilinear,setsar=1,format=yuv420p,format=rgb24,settb=AVTB,"
        f"select='{wanted}',metadata=print:key=lavfi.scene_score:file={FRAMES},select=lt(n\\,{PICTURES_MOST})[pictures]"
    )
    outputs = ["-map", "[pictures]", "-fps_mode", "passthrough", *JPEG, "-f", "image2", "frame-%05d.jpg"]
    if sound:
        meter = f"ebur128=peak=true:metadata=1:framelog=quiet,ametadata=print:file={LOUDNESS}"
        outputs += ["-map", "0:a:0", "-af", meter, "-f", "null", "-"]
    if sound and speech:
        outputs += ["-map", "0:a:0", "-ac", "1", "-ar", "16000", "-c:a", "pcm_s16le", "-map_metadata", "-1", SPEECH]
    return ["-reinit_filter:v", "0", *source, "-filter_complex", graph, *outputs]


def read_frames(folder: Path) -> list[Frame]:
    """The pictures that the pass chose, in the order of time; those past PICTURES_MOST have no file."""
    path = folder / FRAMES
    text = path.read_text() if path.exists() else ""
    found = re.findall(r"^frame:(\d+) +pts:(-?\d+).*\nlavfi\.scene_score=([\d.]+)$", text, re.MULTILINE)
    return [Frame(int(number), max(0, int(pts)) / 1e6, float(score)) for number, pts, score in found]


def read_loudness(folder: Path, start: float) -> Loudness:
    """What the pass measured of sound that begins at `start` seconds."""
    path = folder / LOUDNESS
    if not path.exists():
        return Loudness(None, None, None)
    with open(path, "rb") as file:  # figures of the sound so far, ten times a second: the last ones count
        first = re.search(rb"pts_time:(-?[\d.]+)", file.readline())
        file.seek(max(0, path.stat().st_size - 65536))
        text = file.read().decode("ascii", "replace")
    if first is None or float(first[1]) > start + 1:  # the meter began anew: the last part is not the whole
        return Loudness(None, None, None)
    value = {name: float(number) for name, number in re.findall(r"^lavfi\.r128\.(\w+)=(-?[\d.]+)$", text, re.MULTILINE)}
    integrated, peak = value.get("I", -70.0), value.get("true_peak", 0.0)
    if integrated <= -70.0:  # R128's absolute gate: nothing counted
        return Loudness(None, None, _decibels(peak))
    measured = float(re.findall(r"pts_time:(-?[\d.]+)", text)[-1]) - float(first[1])
    span = round(value.get("LRA", 0.0), 1) if measured >= RANGE_SECONDS else None
    return Loudness(round(integrated, 1), span, _decibels(peak))


def _decibels(share: float) -> float | None:
    return round(20 * math.log10(share), 1) if share > 0 else None


# --- what the frames say -------------------------------------------------------------------------------------------


def cuts(frames: list[Frame]) -> list[float]:
    """When the picture changes at once, in seconds; none within MERGE_SECONDS of the one before or of the beginning."""
    found: list[float] = []
    for frame in frames:
        if frame.score > CUT_SCORE and frame.at - (found[-1] if found else 0.0) >= MERGE_SECONDS:
            found.append(frame.at)
    return found


def scenes(frames: list[Frame], end: float) -> list[Scene]:
    """The whole video up to `end`, parted at its cuts."""
    inside = [cut for cut in cuts(frames) if cut < end]
    return [Scene(start, stop) for start, stop in pairwise([0.0, *inside, end])]


def keyframes(frames: list[Frame], parts: list[Scene], most: int) -> list[tuple[int, Frame]]:
    """(number of the scene, the picture nearest to its middle) in the order of time; of the `most` longest scenes."""
    longest = sorted(range(len(parts)), key=lambda number: -parts[number].seconds)[:most]
    inside: dict[int, list[Frame]] = {number: [] for number in longest}
    current = 0
    for frame in frames[:PICTURES_MOST]:
        while current + 1 < len(parts) and frame.at >= parts[current].end:
            current += 1
        if current in inside:
            inside[current].append(frame)
    chosen = []
    for number, held in sorted(inside.items()):
        middle = (parts[number].start + parts[number].end) / 2
        if held:
            chosen.append((number, min(held, key=lambda frame: abs(frame.at - middle))))
    return chosen


def evenly(frames: list[Frame], end: float, most: int) -> list[Frame]:
    """Up to `most` pictures at even distances over the whole video, each once."""
    kept = frames[:PICTURES_MOST]
    count = min(most, len(kept))
    wanted = [(number + 0.5) * end / count for number in range(count)]
    nearest = {min(kept, key=lambda frame: abs(frame.at - at)) for at in wanted}
    return sorted(nearest, key=lambda frame: frame.at)


def contact_sheet(pictures: str, count: int, cell: tuple[int, int], into: str) -> tuple[list[str], int, int]:
    """(FFmpeg's arguments, columns, rows) that lay out `count` of our own JPEGs, numbered from 1 by the pattern."""
    columns = math.ceil(math.sqrt(count)) if count < 30 else 6
    rows = math.ceil(count / columns)
    source = ["-f", "image2", "-framerate", "1", "-start_number", "1", "-i", pictures]
    layout = f"scale={cell[0]}:{cell[1]},tile={columns}x{rows}:padding=4:margin=4"
    return [*source, "-vf", layout, "-frames:v", "1", *JPEG, "-update", "1", into], columns, rows
