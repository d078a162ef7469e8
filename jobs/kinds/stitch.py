"""STITCH: clips joined into one film. What matches is copied bit for bit, only what differs is encoded anew; with
cross-fades all of it is."""

import shutil
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from rest_framework import serializers

from jobs.engines import clips as clipping
from jobs.engines import fades, ffmpeg, join, media, mp4
from jobs.engines.clips import Clip, Encoding, Format
from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import InputField, Kind, Limits, Run, register
from jobs.kinds.fields import EvenField, NumberField

AUDIO_STEP = Fraction(40, 1000)  # seconds that sound and pictures may end apart
AT_ONCE = 2  # clips that are encoded side by side
LOOKED, ENCODED, JOINED = 0.05, 0.85, 0.95  # progress at the end of each stage


@register
class Stitch(Kind):
    """Join 2 to 200 clips in the order given. One output: `film.mp4`, H.264 unless all clips have one other format.

    `audio` replaces the clips' sound, cut or filled with silence to the film's length; else clips without sound get
    silence where the film has any. `width`, `height`, `fps` default to what most of the clips have. `crossfade` is how
    long each clip fades into the next, sound and pictures; the film is shorter by these overlaps.
    """

    name = "STITCH"
    queue = "cpu"
    limits = Limits(run=3600, stall=90)  # seconds

    class Params(serializers.Serializer):
        clips = serializers.ListField(child=InputField(takes_cut=True), min_length=2, max_length=200)
        audio = InputField(accepts=("audio", "video"), required=False, help_text="Takes the place of the clips' sound.")
        width = EvenField(min_value=64, max_value=4096, required=False, help_text="Pixels, even; else as most clips.")
        height = EvenField(min_value=64, max_value=4096, required=False, help_text="Pixels, even; else as most clips.")
        fps = NumberField(min_value=1, max_value=120, required=False, label="Pictures a second")
        crossfade = NumberField(min_value=0, max_value=2, required=False, help_text="Seconds between two clips.")

    def price(self, params: dict[str, Any]) -> int:
        return settings.JOBSITE["PRICE_STITCH_BASE"] + len(params["clips"]) // 10

    def run(self, run: Run) -> None:
        run.progress(0.0, "looking at the clips")
        clips = [clipping.look(f"clips.{n}", run.input(ref)) for n, ref in enumerate(run.params["clips"])]
        tracks = [track for clip in clips if clip.movie for track in (clip.movie.video, clip.movie.audio) if track]
        if sum(track.count for track in tracks) > 2 * media.MAX_FRAMES:  # their tables are held in memory
            raise JobError(ErrorCode.bad_input, "clips have too many pictures and sounds in all.")
        form = look_closer(run, clips)
        sound = look_at_sound(run, clips)
        run.progress(LOOKED, "encoding")
        own_sound = sound if not run.params.get("audio") else None
        if run.params.get("crossfade"):
            audios = blend(run, clips, form, own_sound)
        else:
            encode(run, clips, form, own_sound)
            audios = [clip.audio for clip in clips if clip.audio]
        if run.params.get("audio"):
            seconds = sum((clip.video.seconds for clip in clips if clip.video), Fraction(0))
            copied = all(clip.movie and clip.video is clip.movie.video for clip in clips)
            audios = [encode_track(run, seconds, start=LOOKED if copied else ENCODED)]
        film = run.workdir / "film.mp4"
        run.progress(ENCODED, "joining")
        write(run, clips, audios, film)
        run.progress(JOINED, "checking")
        run.output(film, "film.mp4")  # hashed and synced while it is checked
        verify(run, clips, film, with_sound=bool(audios))


def look_closer(run: Run, clips: list[Clip]) -> Format:
    """Settle the film's format; clips whose pictures do not have it are read whole by a child, and refused if cut."""
    wanted: dict[str, Any] = {name: run.params.get(name) for name in ("width", "height", "fps")}
    if run.params.get("crossfade"):
        probe(run, clips)
        return clipping.choose(clips, copy=False, **wanted)
    probe(run, [clip for clip in clips if clip.movie is None])
    for number, clip in enumerate(clips):
        if clipping.remuxable(clip):
            remux(run, clip, run.workdir / f"remux{number}.mp4")
    if not any(clipping.shape(clip) for clip in clips):
        probe(run, clips)
    form = clipping.choose(clips, **wanted)
    if form.shape is None:
        probe(run, clips)
        form = clipping.choose(clips, **wanted)
    probe(run, [clip for clip in clips if clipping.shape(clip) != form.shape])
    return form


def probe(run: Run, clips: list[Clip]) -> None:
    """Have those not yet read whole read by one child."""
    new = {clip.label: clip for clip in clips if clip.probe is None}
    if new:
        paths = {label: clip.path for label, clip in new.items()}
        for label, found in media.probe_all(paths, stop=run.check, on_file=lambda done: run.alive()).items():
            new[label].probe = found
            clipping.check_probe(new[label])


def remux(run: Run, clip: Clip, into: Path) -> None:
    """Put H.264 of another container into an MP4; if that gives none that can be copied, the clip stays as it was."""
    args = [*ffmpeg.source(clip.path, clip.content_type), "-map", "0:V:0", "-map", "0:a:0?", "-c", "copy"]
    try:
        run.ffmpeg([*args, "-map_metadata", "-1", into.name], seconds=float(clip.seconds), end=0.0)
        moved = mp4.read(into)
    except JobError as failed:
        if failed.code is not ErrorCode.ffmpeg_error or failed.retryable:
            raise
    except (mp4.Unsupported, mp4.Cut):
        pass
    else:
        candidate = Clip(clip.label, into, "video/mp4", movie=moved)
        if clipping.shape(candidate) and moved.video and abs(moved.video.seconds - clip.seconds) < AUDIO_STEP:
            clip.path, clip.content_type, clip.movie, clip.probe, clip.remuxed = into, "video/mp4", moved, None, True


def look_at_sound(run: Run, clips: list[Clip]) -> tuple[int, int, bytes] | None:
    """The film's sound, None for a silent film."""
    return clipping.choose_audio(clips) if any(clip.has_audio for clip in clips) else None


def encode(run: Run, clips: list[Clip], form: Format, sound: tuple[int, int, bytes] | None) -> None:
    """Give every clip its tracks for the film: its own where they fit, encoded ones where not."""
    work: list[Encoding] = []
    for number, clip in enumerate(clips):
        own = clip.movie if clip.movie else mp4.Movie(None, None)
        if form.shape is not None and clipping.shape(clip) == form.shape:
            clip.video, clip.expected = own.video, own.video.count if own.video else 0
        else:
            clip.expected = form.frames(clip.seconds)
        if sound and clipping.copyable_audio(clip) == sound:
            clip.audio = clip.own_audio(clip.video.seconds if clip.video else clip.seconds)
        new_sound = sound if clip.audio is None else None
        if clip.video is None or new_sound:
            work.append(Encoding(clip, None if clip.video else form, new_sound, f"part{number}"))
    total = float(sum(one.clip.seconds for one in work)) or 1.0
    done = 0.0
    for first in range(0, len(work), AT_ONCE):
        group = work[first : first + AT_ONCE]
        length = float(sum(one.clip.seconds for one in group))
        share = [min(ENCODED, LOOKED + (ENCODED - LOOKED) * part / total) for part in (done, done + length)]
        done += length
        run.progress(share[0], f"encoding: {' and '.join(one.clip.label for one in group)}")
        encode_together(run, group, share)
        for one in group:
            if one.to:
                one.clip.video = made_pictures(run, one.clip, f"{one.stem}v.mp4")
            if one.sound:
                one.clip.audio = made(run.workdir / f"{one.stem}a.mp4", one.clip.label).audio


def encode_together(run: Run, group: list[Encoding], share: list[float]) -> None:
    """Encode clips at once in one FFmpeg, so that one child is watched and killed; progress follows the longest.

    If it fails, each is encoded alone: the one that is to blame is named, or each fits into memory.
    """
    longest = float(max(one.clip.seconds for one in group))
    work = partial(run.ffmpeg, clipping.encode(group), seconds=longest, start=share[0], end=share[1])
    if len(group) == 1:
        return with_label(group[0].clip.label, work)
    try:
        work()
    except JobError as failed:
        if failed.retryable or failed.code not in (ErrorCode.ffmpeg_error, ErrorCode.out_of_memory):
            raise
        for one in group:
            encode_together(run, [one], [share[1], share[1]])


def blend(run: Run, clips: list[Clip], form: Format, sound: tuple[int, int, bytes] | None) -> list[mp4.Track]:
    """Give every clip its pictures with the one before fading out under them; the film's sound comes as one track."""
    parts = fades.parts(clips, form, run.params["crossfade"])
    total = sum(part.count for part in parts)
    with open(run.workdir / "sound.pcm", "wb") as whole:
        for number, part in enumerate(parts):
            clip, length = part.clip, float(part.count / form.fps)
            share = [
                min(ENCODED, LOOKED + (ENCODED - LOOKED) * at / total) for at in (part.starts, part.starts + part.count)
            ]
            run.progress(share[0], f"encoding: {clip.label}")
            args = fades.encode(part, form, sound, f"part{number}")
            with_label(clip.label, partial(run.ffmpeg, args, seconds=length, start=share[0], end=share[1]))
            clip.expected = part.count
            clip.video = made_pictures(run, clip, f"part{number}v.mp4")
            if sound:
                heard = run.workdir / f"part{number}a.pcm"
                with open(heard, "rb") as own:
                    shutil.copyfileobj(own, whole)
                heard.unlink()
    if sound is None:
        return []
    seconds = Fraction(total) / form.fps
    args = [*fades.pcm("sound.pcm", sound), *clipping.encode_sound(sound, seconds), "soundtrack.mp4"]
    run.ffmpeg(args, seconds=float(seconds), start=ENCODED, end=ENCODED)
    track = made(run.workdir / "soundtrack.mp4", "The film's sound").audio
    return [track] if track else []


def made_pictures(run: Run, clip: Clip, name: str) -> mp4.Track | None:
    """The pictures that FFmpeg made of a clip; JobError(ffmpeg_error) if they are not as many as it must bring."""
    video = made(run.workdir / name, clip.label).video
    found = video.count if video else 0
    if abs(found - clip.expected) > 1:
        message = f"{clip.label} gave {found} of {clip.expected} pictures: it is damaged or cut short."
        raise JobError(ErrorCode.ffmpeg_error, message)
    return video


def encode_track(run: Run, seconds: Fraction, *, start: float) -> mp4.Track:
    """The `audio` input as the whole film's sound, exactly `seconds` long; progress goes on from `start`."""
    path = run.input(run.params["audio"])
    found = media.probe(path, label="audio", stop=run.check)
    if found.audio is None:
        raise JobError(ErrorCode.bad_input, "audio has no sound.")
    if found.cut:
        raise JobError(ErrorCode.ffmpeg_error, "audio is cut short: the file ends in the middle.")
    args = [*ffmpeg.source(path, found.content_type), "-map", "0:a:0"]
    args += [*clipping.encode_sound((48_000, 2, b""), seconds), "soundtrack.mp4"]
    with_label("audio", lambda: run.ffmpeg(args, seconds=float(seconds), start=start, end=ENCODED))
    track = made(run.workdir / "soundtrack.mp4", "audio").audio
    if track is None:
        raise JobError(ErrorCode.ffmpeg_error, "audio gave no sound.")
    return track


def with_label(label: str, work: Callable[[], None]) -> None:
    """Do `work`; if FFmpeg cannot, say which input it was."""
    try:
        work()
    except JobError as failed:
        if failed.code is ErrorCode.ffmpeg_error:
            raise JobError(failed.code, f"{label}: {failed.message}", retryable=failed.retryable) from failed
        raise


def made(path: Path, label: str) -> mp4.Movie:
    """What FFmpeg made of an input; JobError(ffmpeg_error) if it is no whole MP4."""
    try:
        return mp4.read(path)
    except (mp4.Unsupported, mp4.Cut, OSError) as wrong:
        raise JobError(ErrorCode.ffmpeg_error, f"{label} came out unreadable.") from wrong


def write(run: Run, clips: list[Clip], audios: list[mp4.Track], film: Path) -> None:
    """Join the tracks into `film`."""
    videos = [clip.video for clip in clips if clip.video]
    total = sum(sum(track.sizes) for track in (*videos, *audios)) or 1

    def written(size: int) -> None:
        run.progress(min(JOINED, ENCODED + (JOINED - ENCODED) * size / total), "joining")

    try:
        join.join(videos, audios, film, check=written)
    except EOFError as gone:
        raise JobError(ErrorCode.input_gone, "A clip changed while it was read.") from gone
    except OSError as full:
        raise JobError(ErrorCode.storage_error, f"The film could not be written: {full.strerror}.") from full


def verify(run: Run, clips: list[Clip], film: Path, *, with_sound: bool) -> None:
    """Raise JobError(ffmpeg_error) unless the film is whole.

    Checked: its pictures, within 2 of what the clips must bring; pictures and sound end within 40 ms of each other;
    FFmpeg reads every packet of it without an error; and every part that was encoded anew or came out of another
    container decodes without one, with half a second of its neighbours. Copied parts are not decoded: what was damaged
    inside a clip stays as it was.
    """
    movie = made(film, "The film")
    expected, found = sum(clip.expected for clip in clips), movie.video.count if movie.video else 0
    if abs(found - expected) > 2 or movie.video is None:
        raise JobError(ErrorCode.ffmpeg_error, f"The film has {found} of {expected} pictures.")
    if with_sound and (movie.audio is None or abs(movie.audio.end - movie.video.seconds) > AUDIO_STEP):
        raise JobError(ErrorCode.ffmpeg_error, "The film's sound and pictures do not end together.")
    seconds = float(movie.video.seconds)
    source = ffmpeg.source(film, "video/mp4")
    run.ffmpeg([*source, "-map", "0", "-c", "copy", "-f", "null", "-"], seconds=seconds, start=JOINED, end=JOINED)
    spans = new_spans(clips)
    for number, (label, begin, end) in enumerate(spans):
        length = float(end - begin)
        part = ["-ss", f"{float(begin):.3f}", *source, "-t", f"{length:.3f}", "-map", "0", "-f", "null", "-"]
        share = [JOINED + (1 - JOINED) * n / len(spans) for n in (number, number + 1)]
        with_label(label, partial(run.ffmpeg, part, seconds=length, start=share[0], end=share[1]))


def new_spans(clips: list[Clip]) -> list[tuple[str, Fraction, Fraction]]:
    """What was not copied straight from a clip: (its first clip's label, from, to) in seconds, neighbours as one."""
    spans: list[tuple[str, Fraction, Fraction]] = []
    at, around = Fraction(0), Fraction(1, 2)
    for clip in clips:
        length = clip.video.seconds if clip.video else Fraction(0)
        if clip.remuxed or clip.movie is None or clip.video is not clip.movie.video:
            label, begin, end = clip.label, max(Fraction(0), at - around), at + length + around
            if spans and begin <= spans[-1][2]:
                label, begin, _end = spans.pop()
            spans.append((label, begin, end))
        at += length
    return spans
