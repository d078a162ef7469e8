"""Clips for a film: what each is, which format the film takes, and what must be encoded anew to fit it."""

from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from jobs.engines import ffmpeg, media, mp4
from jobs.errors import ErrorCode, JobError

# In front of an input whose size may change within it (a call that was recorded): the pictures are scaled. Else FFmpeg
# would begin their filters anew, and count time and pictures from 0 again.
SAME_FILTERS = ["-reinit_filter:v", "0"]
AUDIO_SLACK = Fraction(30, 1000)  # seconds that a clip's sound may end before its pictures and still be copied


@dataclass
class Clip:
    """One clip of the film. `movie` is there if its samples can be moved, `probe` once a child has read it whole."""

    label: str  # `clips.0`: what the user is told
    path: Path
    content_type: str
    movie: mp4.Movie | None = None
    remuxed: bool = False  # `movie` was taken out of another container: nothing has proved yet that it decodes
    probe: media.Probe | None = None
    video: mp4.Track | None = None  # what goes into the film: the clip's own track, or the one encoded from it
    audio: mp4.Track | None = None
    expected: int = 0  # pictures that it must bring into the film

    @property
    def has_audio(self) -> bool:
        return bool(self.movie.audio if self.movie else self.probe and self.probe.audio)

    @property
    def seconds(self) -> Fraction:
        """How long its pictures last: that is the clip. Sound before the first and after the last one is cut."""
        if self.probe and self.probe.video:
            return Fraction(self.probe.video.duration).limit_denominator(1_000_000)
        return self.movie.video.seconds if self.movie and self.movie.video else Fraction(0)

    @property
    def lead(self) -> Fraction:
        """Seconds in the file before the first picture."""
        if self.probe and self.probe.video:
            return max(Fraction(0), Fraction(self.probe.video.start - self.probe.start).limit_denominator(1_000_000))
        return self.movie.video.delay if self.movie and self.movie.video else Fraction(0)

    def own_audio(self, seconds: Fraction) -> mp4.Track | None:
        """Its own sound, in step with its first picture; None if it ends too early for `seconds` of pictures."""
        if self.movie is None or self.movie.audio is None:
            return None
        audio = replace(self.movie.audio, delay=self.movie.audio.delay - self.lead)
        return audio if audio.end >= seconds - AUDIO_SLACK and abs(audio.delay) < 1 else None


@dataclass(frozen=True)
class Format:
    """What all pictures of a film have in common; `shape` is the `shape` of the clips that have it already."""

    width: int
    height: int
    fps: Fraction
    timescale: int
    shape: tuple | None = field(default=None, compare=False)

    def frames(self, seconds: Fraction) -> int:
        return max(1, round(seconds * self.fps))


def look(label: str, path: Path) -> Clip:
    """The clip as its first bytes and its index say, without decoding.

    Raises JobError, naming `label`: bad_input (no video, too much of something), ffmpeg_error (cut short).
    """
    content_type = media.sniff(path)
    if content_type is None or not content_type.startswith("video/"):
        raise JobError(ErrorCode.bad_input, f"{label} is not a video.")
    clip = Clip(label, path, content_type)
    if ffmpeg.DEMUXERS[content_type] == "mov":
        try:
            clip.movie = mp4.read(path)
        except mp4.Cut as cut:
            raise JobError(ErrorCode.ffmpeg_error, f"{label} is cut short: the file ends in the middle.") from cut
        except mp4.Unsupported:
            return clip  # FFmpeg may read what this index reader does not
        video = clip.movie.video
        if video is None:
            raise JobError(ErrorCode.bad_input, f"{label} has no video.")
        try:
            media.check_caps(
                seconds=float(video.seconds),
                frames=video.count,
                fps=video.count / float(video.seconds or 1),
                width=video.width,
                height=video.height,
                gap=max(video.deltas) / video.timescale,
                streams=0,
            )
        except media.Unfit as unfit:
            raise JobError(ErrorCode.bad_input, f"{label} {unfit}.") from unfit
    return clip


def check_probe(clip: Clip) -> None:
    """Raise JobError, naming the clip, if what the child read is no whole video."""
    if clip.probe and clip.probe.video is None:
        raise JobError(ErrorCode.bad_input, f"{clip.label} has no video.")
    if clip.probe and clip.probe.cut:
        raise JobError(ErrorCode.ffmpeg_error, f"{clip.label} is cut short: the file ends in the middle.")


def remuxable(clip: Clip) -> bool:
    """Whether its pictures are worth putting into an MP4 as they are, to be copied from there."""
    probe = clip.probe
    return bool(not clip.movie and probe and probe.video and probe.video.codec == "h264") and (
        clip.content_type != "video/x-msvideo"  # AVI does not say when a picture is shown
    )


def shape(clip: Clip) -> tuple | None:
    """Equal for clips whose pictures can stand one after another as they are; None: never.

    H.264 in its 8-bit 4:2:0 profiles needs only the same size and rate; all else must agree to the last bit.
    """
    video = clip.movie.video if clip.movie else None
    if video is None or video.fps is None or not video.plain:
        return None
    rate = round(float(video.fps), 2)
    profile = video.config[1:2]
    if (
        video.codec == "avc1"
        and profile in (b"\x42", b"\x4d", b"\x58", b"\x64")
        and video.config[4] & 3 == 3  # lengths of 4 bytes
        and video.square
        and not video.turned
    ):
        return "avc1", video.width, video.height, rate
    return "exact", video.codec, video.config, video.header, video.width, video.height, rate


def choose(clips: list[Clip], *, width: int | None, height: int | None, fps: float | None, copy: bool = True) -> Format:
    """The film's format: what was asked, else what most of the clips have (the earliest of equals).

    Where no clip's pictures can be copied, or none are to be (`copy`), every clip must have been probed.
    """
    counts = Counter(shape(clip) if copy else None for clip in clips)
    for kind, _count in counts.most_common():
        if kind is None:
            continue
        tracks = [clip.movie.video for clip in clips if clip.movie and clip.movie.video and shape(clip) == kind]
        first = tracks[0]
        fits = (width in (None, first.width), height in (None, first.height))
        rate_fits = fps is None or (first.fps is not None and abs(float(first.fps) - fps) < 0.005)
        if all(fits) and rate_fits and (kind[0] == "avc1" or len(tracks) == len(clips)):
            return Format(first.width, first.height, first.fps or Fraction(0), first.timescale, kind)
    sizes = Counter(size(clip) for clip in clips)
    most: tuple[float, float] = sizes.most_common(1)[0][0]
    rates = Counter(mp4.standard_fps(Fraction(clip_fps(clip)).limit_denominator(100_000)) for clip in clips)
    rate = mp4.standard_fps(Fraction(fps).limit_denominator(100_000)) if fps else rates.most_common(1)[0][0]
    rate = min(Fraction(120), max(Fraction(1), rate))
    if width and not height:
        most = (width, width * most[1] / most[0])
    elif height and not width:
        most = (height * most[0] / most[1], height)
    elif width and height:
        most = (width, height)
    timescale = rate.numerator * -(-10_000 // rate.numerator)  # a picture lasts a whole number of ticks
    return Format(_even(most[0]), _even(most[1]), rate, timescale)


def _even(number: float) -> int:
    return min(4096, max(16, round(number / 2) * 2))


def size(clip: Clip) -> tuple[int, int]:
    """Width and height as shown, after turning."""
    if clip.probe and clip.probe.video:
        video = clip.probe.video
        return (video.height, video.width) if video.rotation in (90, 270) else (video.width, video.height)
    video_track = clip.movie.video if clip.movie else None
    return (video_track.width, video_track.height) if video_track else (0, 0)


def clip_fps(clip: Clip) -> float:
    """Pictures a second; a whole number where the clip's own rate varies."""
    if clip.probe and clip.probe.video:
        video = clip.probe.video
        return (float(max(1, round(video.fps))) if video.variable else video.fps) or 25.0
    return float(clip.movie.video.fps or 25) if clip.movie and clip.movie.video else 25.0


def copyable_audio(clip: Clip) -> tuple | None:
    """(rate, channels, decoder configuration) of sound that can be copied: AAC-LC, mono or stereo; else None."""
    audio = clip.movie.audio if clip.movie else None
    if (
        audio is None
        or audio.codec != "mp4a"
        or audio.descriptions > 1
        or audio.timescale != audio.rate
        or audio.channels not in (1, 2)
    ):
        return None
    if max(audio.deltas) > 60 * audio.timescale:
        return None
    config = mp4.aac_lc(audio.config)
    return (audio.rate, audio.channels, config) if config else None


def choose_audio(clips: list[Clip]) -> tuple[int, int, bytes]:
    """The film's sound (rate, channels, configuration): what most of the clips have, else 48 kHz stereo."""
    counts = Counter(kind for clip in clips if (kind := copyable_audio(clip)))
    return counts.most_common(1)[0][0] if counts else (48_000, 2, b"\x11\x90")


def picture_filters(to: Format) -> str:
    """Filters that bring any picture to the format: upright (FFmpeg turns it), fitted in, black around, even rate."""
    box = f"{to.width}:{to.height}"
    return (
        f"setpts=PTS-STARTPTS,scale=iw*sar:ih,scale={box}:force_original_aspect_ratio=decrease:force_divisible_by=2,pad={box}:-1:-1,setsar=1,"
        f"fps={to.fps.numerator}/{to.fps.denominator}:start_time=0,tpad=stop=2:stop_mode=clone,format=yuv420p"
    )


@dataclass(frozen=True)
class Encoding:
    """One clip to be encoded anew: `<stem>v.mp4` (pictures, if `to`) and `<stem>a.mp4` (sound, if `sound`)."""

    clip: Clip
    to: Format | None
    sound: tuple[int, int, bytes] | None
    stem: str


def encode(work: list[Encoding]) -> list[str]:
    """The arguments of one FFmpeg that encodes several clips at once, each into its own files.

    A clip brings `expected` pictures; its sound is cut or filled up with silence to their length.
    """
    inputs: list[str] = []
    outputs: list[str] = []
    for one in work:
        clip, to, sound = one.clip, one.to, one.sound
        number = inputs.count("-i")
        inputs += [*SAME_FILTERS, *ffmpeg.source(clip.path, clip.content_type)]
        if to:
            outputs += ["-map", f"{number}:V:0", "-vf", picture_filters(to), "-frames:v", str(clip.expected)]
            outputs += [*encode_pictures(to), f"{one.stem}v.mp4"]
        if sound:
            seconds = Fraction(clip.expected) / to.fps if to else clip.seconds
            if not clip.has_audio:
                number += 1
                inputs += ["-f", "lavfi", "-i", f"anullsrc=r={sound[0]}:cl={'mono' if sound[1] == 1 else 'stereo'}"]
            outputs += ["-map", f"{number}:a:0", *encode_sound(sound, seconds, clip.lead), f"{one.stem}a.mp4"]
    return [*inputs, *outputs]


def encode_pictures(to: Format) -> list[str]:
    """Output arguments: H.264 in the format's time scale."""
    args = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p"]  # xfade gives 4:4:4
    return [*args, "-video_track_timescale", str(to.timescale), "-map_metadata", "-1", "-map_chapters", "-1"]


def even_sound(sound: tuple[int, int, bytes], lead: Fraction) -> str:
    """Filters that bring any sound to this rate and channels, without end: from `lead` on, holes are silence."""
    cut = f"atrim=start={float(lead):.6f},asetpts=PTS-{float(lead):.6f}/TB," if lead else ""
    layout = "mono" if sound[1] == 1 else "stereo"
    even = f"aresample={sound[0]}:async=1:first_pts=0,aformat=sample_rates={sound[0]}:channel_layouts={layout}"
    return f"{cut}{even},apad"


def encode_sound(sound: tuple[int, int, bytes], seconds: Fraction, lead: Fraction = Fraction(0)) -> list[str]:
    """Output arguments: AAC of this rate and channels, `seconds` long from `lead` on, holes filled with silence."""
    rate, channels, _config = sound
    cut = f"atrim=start={float(lead):.6f},asetpts=PTS-{float(lead):.6f}/TB," if lead else ""
    args = ["-vn", "-af", f"{cut}aresample=async=1:first_pts=0,apad", "-t", f"{float(seconds):.6f}", "-c:a", "aac"]
    return [*args, "-b:a", f"{80 * channels}k", "-ar", str(rate), "-ac", str(channels), "-map_metadata", "-1"]
