"""Cross-fades: each clip of a film encoded anew, its beginning blended with the end of the clip before it."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from jobs.engines import ffmpeg
from jobs.engines.clips import SAME_FILTERS, Clip, Format, encode_pictures, even_sound, picture_filters


@dataclass(frozen=True)
class Part:
    """What one clip brings into the film: its pictures but those that the next clip's part shows, blended.

    Counts are pictures. `before` is the clip that fades out under its first `overlap` pictures; `starts` is where in
    the film the part begins.
    """

    clip: Clip
    before: Clip | None
    before_count: int  # of the clip before, whole
    overlap: int
    count: int
    starts: int


def parts(clips: list[Clip], form: Format, seconds: float) -> list[Part]:
    """How `clips` make a film with fades of `seconds`: shorter ones where a clip does not last twice as long."""
    counts = [form.frames(clip.seconds) for clip in clips]
    fade = round(Fraction(seconds) * form.fps)
    overlaps = [0, *(min(fade, a // 2, b // 2) for a, b in pairwise(counts)), 0]
    found: list[Part] = []
    starts = 0
    for number, clip in enumerate(clips):
        before = clips[number - 1] if overlaps[number] else None
        count = counts[number] - overlaps[number + 1]
        found.append(Part(clip, before, counts[number - 1], overlaps[number], count, starts))
        starts += count
    return found


def encode(part: Part, form: Format, sound: tuple[int, int, bytes] | None, stem: str) -> list[str]:
    """FFmpeg's arguments that make a part's `<stem>v.mp4` and, if the film has `sound`, `<stem>a.pcm`.

    The sound is not packed yet: AAC packets of two encodings do not fit together in the middle of a sound. Its length
    is that of the pictures to the sample, counted from the film's beginning.
    """
    clips = [part.clip, *([part.before] if part.before else [])]
    args = [word for clip in clips for word in (*SAME_FILTERS, *ffmpeg.source(clip.path, clip.content_type))]
    rate = f"fps={form.fps.numerator}/{form.fps.denominator}:start_time=0"  # xfade wants it said again after setpts
    graph = [f"[0:V:0]{picture_filters(form)},trim=end_frame={part.count},setpts=PTS-STARTPTS,{rate}[new]"]
    pictures = "[new]"
    if part.before:
        tail = f"trim=start_frame={part.before_count - part.overlap}:end_frame={part.before_count}"
        fade = f"xfade=transition=fade:offset=0:duration={float(part.overlap / form.fps):.6f}"
        graph += [f"[1:V:0]{picture_filters(form)},{tail},setpts=PTS-STARTPTS,{rate}[old]", f"[old][new]{fade}[v]"]
        pictures = "[v]"
    outputs = ["-map", pictures, "-frames:v", str(part.count), *encode_pictures(form), f"{stem}v.mp4"]
    if sound:
        for clip in clips:
            if not clip.has_audio:
                args += ["-f", "lavfi", "-i", f"anullsrc=r={sound[0]}:cl=mono"]
        inputs = iter(range(len(clips), 2 * len(clips)))
        names = [f"[{number if clip.has_audio else next(inputs)}:a:0]" for number, clip in enumerate(clips)]

        def at(pictures: int) -> int:  # samples
            return round(pictures / form.fps * sound[0])

        count = at(part.starts + part.count) - at(part.starts)
        graph.append(f"{names[0]}{even_sound(sound, part.clip.lead)},atrim=end_sample={count}[loud]")
        heard = "[loud]"
        if part.before:
            first, length = at(part.before_count - part.overlap), at(part.overlap)
            tail = f"atrim=start_sample={first}:end_sample={first + length},asetpts=PTS-STARTPTS"
            graph.append(f"{names[1]}{even_sound(sound, part.before.lead)},{tail}[quiet]")
            graph.append(f"[quiet][loud]acrossfade=ns={length}[a]")
            heard = "[a]"
        outputs += ["-map", heard, "-c:a", "pcm_s16le", "-f", "s16le", f"{stem}a.pcm"]
    return [*args, "-filter_complex", ";".join(graph), *outputs]


def pcm(name: str, sound: tuple[int, int, bytes]) -> list[str]:
    """The arguments that read such sound from a file of the work folder."""
    layout = "mono" if sound[1] == 1 else "stereo"
    return [
        "-protocol_whitelist",
        "file",
        "-f",
        "s16le",
        "-ar",
        str(sound[0]),
        "-ch_layout",
        layout,
        "-i",
        f"file:{name}",
    ]
