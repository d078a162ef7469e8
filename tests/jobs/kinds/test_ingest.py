"""INGEST, done for real: what is found in a video, and what is refused, by its name."""

import json
import subprocess

import av
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage

from jobs import lifecycle, runner
from jobs.engines import ffmpeg, media, scenes, speech
from jobs.errors import ErrorCode, JobError
from jobs.heartbeat import heart
from jobs.kinds.base import Abort
from jobs.kinds.ingest import Ingest, clock
from jobs.models import Job, Status
from tests.jobs.engines.whisper import plant
from tests.jobs.kinds.rig import Rig, refused, validated

KIND = Ingest()
UPLOAD = f"upload:{0:032}"


@pytest.fixture
def configure(settings):
    """configure(SPEECH_MODEL=…) for this test."""

    def change(**values):
        settings.JOBSITE = settings.JOBSITE | values

    return change


@pytest.fixture(scope="module")
def advert(tmp_path_factory):
    """3.2 s of 96x54 with cuts at 1.0 and 2.2 s, and a tone."""
    path = tmp_path_factory.mktemp("advert") / "advert.mp4"
    pictures = [("smptebars", 1.0), ("testsrc2", 1.2), ("rgbtestsrc", 1.0)]
    inputs = [word for name, seconds in pictures for word in ("-f", "lavfi", "-i", f"{name}=s=96x54:r=25:d={seconds}")]
    joined = "".join(f"[{number}]format=yuv420p,setsar=1[v{number}];" for number in range(3)) + "[v0][v1][v2]concat=n=3"
    command = [ffmpeg.bundled(), "-v", "error", "-nostdin", *inputs, "-f", "lavfi", "-i", "sine=d=3.2"]
    command += ["-filter_complex", joined, "-map", "3:a", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([*command, str(path)], check=True)
    return path


def rig_for(folder, path) -> Rig:
    return Rig(folder, validated(KIND, source_type="upload", upload=UPLOAD), {UPLOAD: path})


def ingest(folder, path) -> tuple[dict, Rig]:
    rig = rig_for(folder, path)
    KIND.run(rig)
    return json.loads(rig.outputs["result.json"].read_text()), rig


def test_all_of_a_video(tmp_path, advert):
    result, rig = ingest(tmp_path / "run", advert)
    assert result["ad_id"] == str(rig.job_id)
    assert result["source"]["bytes"] == advert.stat().st_size
    assert result["video"] | {"codec": "h264", "width": 96, "height": 54, "fps": 25.0, "frames": 80} == result["video"]
    assert result["audio"]["codec"] == "aac"
    assert [part["start"] for part in result["scenes"]] == pytest.approx([0.0, 1.0, 2.2], abs=0.04)
    assert result["scenes"][-1]["end"] == pytest.approx(3.2, abs=0.04)
    assert [(key["file"], key["scene"]) for key in result["keyframes"]] == [
        ("keyframe-001.jpg", 0),
        ("keyframe-002.jpg", 1),
        ("keyframe-003.jpg", 2),
    ]
    assert -30 < result["loudness"]["integrated_lufs"] < -10
    assert (result["transcript"], result["transcript_missing"]) == (None, "No speech model is configured.")
    assert result["summary"].startswith(
        "0:03.2 of 96x54 h264 at 25 pictures a second, aac sound in 1 channel. 3 scenes of 1.1 s on average; "
        "the longest, 1.2 s, begins at 0:01.0. Loudness -"
    )
    assert set(rig.outputs) == {"result.json", "contact_sheet.jpg", *(f"keyframe-{n:03d}.jpg" for n in (1, 2, 3))}
    assert next(iter(rig.outputs)) == "result.json"
    sheet = media.probe(rig.outputs["contact_sheet.jpg"]).video
    columns, rows = result["contact_sheet"]["columns"], result["contact_sheet"]["rows"]
    assert (sheet.width, sheet.height) == (96 * columns + 4 * (columns + 1), 54 * rows + 4 * (rows + 1))
    assert columns * rows >= len(result["contact_sheet"]["at"]) >= 6
    assert rig.stages == ["validating_input", "pipeline_running"]
    assert rig.fractions == sorted(rig.fractions)
    assert sum("/input-0" in " ".join(command) for command in rig.commands) == 1  # one pass over the video


def test_the_same_video_gives_the_same_words(tmp_path, advert):
    results = [ingest(tmp_path / name, advert)[0] for name in ("one", "two")]
    for result in results:
        del result["seconds_taken"]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("name", "size", "has_sound"),
    [
        ("silent.mp4", (128, 72), False),
        ("rotated.mp4", (128, 72), True),
        ("variable.mp4", (128, 72), True),
        ("vp8.webm", (128, 72), True),
        ("h264.ts", (128, 72), True),
        ("camcorder.mts", (128, 72), True),
        ("mpeg4.avi", (128, 72), True),
        ("pcm.mov", (128, 72), True),
        ("short-sound.mp4", (128, 72), True),
        ("trimmed.mov", (128, 72), True),
        ("slow.mp4", (128, 72), False),
    ],
)
def test_videos_of_all_forms(tmp_path, material, name, size, has_sound):
    result, rig = ingest(tmp_path / "run", material(name))
    assert (result["video"]["width"], result["video"]["height"]) == size
    assert (result["loudness"] is not None, result["audio"] is not None) == (has_sound, has_sound)
    assert len(result["scenes"]) == len(result["keyframes"]) == 1
    picture = media.probe(rig.outputs["keyframe-001.jpg"]).video
    assert (picture.width, picture.height) == size


def test_a_large_video_has_pictures_of_640_pixels(tmp_path):
    command = [ffmpeg.bundled(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=1280x720:r=5:d=1"]
    subprocess.run([*command, "-c:v", "mpeg4", str(tmp_path / "large.mp4")], check=True)
    _result, rig = ingest(tmp_path / "run", tmp_path / "large.mp4")
    with av.open(str(rig.outputs["keyframe-001.jpg"])) as opened:
        picture = next(opened.decode(video=0))
    assert (picture.width, picture.height, picture.format.name) == (640, 360, "yuvj420p")


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    """PAL in 16:9, as television has it."""
    command = [ffmpeg.bundled(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=180x144:r=5:d=1,setsar=64/45"]
    subprocess.run([*command, "-c:v", "mpeg2video", "-r", "25", str(tmp_path / "pal.ts")], check=True)
    result, rig = ingest(tmp_path / "run", tmp_path / "pal.ts")
    assert (result["video"]["width"], result["video"]["height"], result["duration"]) == (256, 144, 1.0)
    picture = media.probe(rig.outputs["keyframe-001.jpg"]).video
    assert (picture.width, picture.height) == (256, 144)


# --- what cannot be used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"just text in a file that is called mp4\n" * 20, "is not a video"),
        (b"#EXTM3U\n/etc/passwd\n", "is not a video"),
        (b"", "is not a video"),
        ("still.png", "is not a video"),
        ("moving.gif", "is not a video"),
        ("tone.mp3", "is not a video"),
        ("tone.m4a", "is not a video"),
        ("tone-only.mp4", "has no pictures"),
        ("gap.mp4", "stands still for"),
        ("many-streams.mp4", "streams"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, material, content, words):
    path = tmp_path / "advert.mp4"
    if content == "tone-only.mp4":
        path.write_bytes(material("tone.m4a").read_bytes().replace(b"M4A ", b"isom"))
    else:
        path.write_bytes(content if isinstance(content, bytes) else material(content).read_bytes())
    with pytest.raises(JobError, match=words) as raised:
        ingest(tmp_path / "run", path)
    assert (raised.value.code, raised.value.retryable) == (ErrorCode.bad_input, False)
    assert raised.value.message.startswith("upload ")


@pytest.mark.parametrize("name", ["front.mp4", "h264.mkv", "h264.ts"])
def test_a_truncated_video_is_refused(tmp_path, material, name):
    with pytest.raises(JobError, match=r"cut short|damaged") as raised:
        ingest(tmp_path / "run", material.half(name, 0.6))
    assert raised.value.code is ErrorCode.bad_input


def test_a_video_without_frames_is_refused(tmp_path):
    empty = tmp_path / "empty.mp4"
    command = [ffmpeg.bundled(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x64:d=1", "-frames:v", "0"]
    subprocess.run([*command, "-movflags", "+empty_moov", str(empty)], check=True)
    with pytest.raises(JobError) as raised:
        ingest(tmp_path / "run", empty)
    assert raised.value.code is ErrorCode.bad_input


def test_a_pass_that_breaks_off_silently_is_no_success(tmp_path, advert, monkeypatch):
    monkeypatch.setattr(scenes, "read_frames", lambda folder: [scenes.Frame(0, 0.0, 0.0)])
    monkeypatch.setattr("jobs.kinds.ingest.last_of", lambda found: 30.0)
    with pytest.raises(JobError, match=r"upload gave pictures for 0\.0 of 30\.0 seconds") as raised:
        ingest(tmp_path / "run", advert)
    assert raised.value.code is ErrorCode.ffmpeg_error


def test_a_picture_that_cannot_be_decoded_names_the_input(tmp_path, advert):
    broken = bytearray(advert.read_bytes())
    start = broken.index(b"mdat") + 2000
    broken[start : start + 3000] = b"\xff" * 3000
    (tmp_path / "broken.mp4").write_bytes(broken)
    with pytest.raises(JobError) as raised:
        ingest(tmp_path / "run", tmp_path / "broken.mp4")
    assert raised.value.code is ErrorCode.ffmpeg_error
    assert raised.value.message.startswith("upload: ")


@pytest.mark.parametrize("stage", ["validating_input", "pipeline_running"])
def test_a_cancel_ends_it_at_any_stage(tmp_path, advert, stage):
    rig = rig_for(tmp_path / "run", advert)
    rig.abort_when = lambda rig: stage in rig.stages
    with pytest.raises(Abort):
        KIND.run(rig)
    assert not rig.outputs


# --- params --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({}, {"source_type"}),
        ({"source_type": "http"}, {"source_type"}),
        ({"source_type": "upload"}, {"upload"}),
        ({"source_type": "path"}, {"path"}),
        ({"source_type": "s3"}, {"s3_key"}),
        ({"source_type": "s3", "s3_key": "a.mp4", "path": "a.mp4", "upload": UPLOAD}, {"path", "upload"}),
        ({"source_type": "upload", "upload": "/etc/passwd"}, {"upload"}),
        *(
            ({"source_type": kind, field: text}, {field})
            for kind, field in (("path", "path"), ("s3", "s3_key"))
            for text in (
                *("", "/etc/passwd", "../x.mp4", "a/../../x.mp4", "..", ".", "a//b", "a/./b", "a/", "..\\x", "a\nb"),
                *("%2e%2e/x.mp4", "a/%2e%2e%2f%2e%2e/x", "%2fetc/passwd", "a%00b", "x" * 2000, 7, ["a"], None),
            )
        ),
        *(
            ({"source_type": "s3", "s3_key": key}, {"s3_key"})
            for key in ("jobs/1/1/video.mp4", "uploads/1", "health/1", "%6aobs/1/1/video.mp4")
        ),
    ],
)
def test_refuses_by_field(params, fields):
    assert set(refused(KIND, **params)) == fields


@pytest.mark.parametrize(
    "key", ["videos/test-ad.mp4", "nonexistent/fake-video.mp4", "50% off.mp4", "jobs.mp4", "é/ñ.mp4"]
)
def test_takes_any_other_key(key):
    assert validated(KIND, source_type="s3", s3_key=key)["s3_key"] == key


def test_a_key_outside_of_the_prefix_is_refused(configure):
    configure(INGEST_PREFIX="videos/")
    assert set(refused(KIND, source_type="s3", s3_key="private/a.mp4")) == {"s3_key"}
    assert not refused(KIND, source_type="s3", s3_key="videos/a.mp4")


def test_a_link_out_of_the_folder_is_refused_at_once(tmp_path, configure):
    configure(INGEST_ROOT=tmp_path / "root")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "out.mp4").symlink_to("/etc/passwd")
    assert set(refused(KIND, source_type="path", path="out.mp4")) == {"path"}
    assert not refused(KIND, source_type="path", path="not-yet.mp4")


def test_its_price_is_a_setting(configure):
    params = validated(KIND, source_type="s3", s3_key="a.mp4")
    assert KIND.price(params) == 0
    configure(PRICE_INGEST=7)
    assert KIND.price(params) == 7


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (59.96, "1:00.0"), (754.3, "12:34.3"), (3600, "1:00:00.0")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


# --- from the operator's folder and the storage, by the runner -----------------------------------------------------


@pytest.fixture
def as_ingestion(ann, monkeypatch):
    """as_ingestion(**params): Ann submits as the ingestion system does, with 5 attempts, and one of them is run."""
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)

    def run_one(**params) -> Job:
        job, _ = lifecycle.submit(ann.pk, "INGEST", validated(KIND, **params), max_attempts=5)
        return run_again(job)

    yield run_one
    heart.stop()


def run_again(job: Job) -> Job:
    Job.objects.filter(pk=job.pk).update(run_after=job.created_at)
    runner.run(lifecycle.claim("cpu"))
    return Job.objects.get(pk=job.pk)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("source", ["path", "s3"])
def test_a_stored_video_is_taken_in_when_it_has_come(as_ingestion, advert, tmp_path, configure, source):
    configure(INGEST_ROOT=tmp_path)
    params = (
        {"source_type": "s3", "s3_key": "videos/ad.mp4"}
        if source == "s3"
        else {"source_type": "path", "path": "ad.mp4"}
    )
    job = as_ingestion(**params)
    assert (job.status, job.error_code, job.failures) == (Status.RETRY, "input_gone", 1)
    assert job.run_after > job.created_at
    if source == "s3":
        default_storage.save("videos/ad.mp4", ContentFile(advert.read_bytes()))
    else:
        (tmp_path / "ad.mp4").write_bytes(advert.read_bytes())
    job = run_again(job)
    assert (job.status, job.stage, job.error_code) == (Status.SUCCEEDED, "succeeded", "")
    outputs = list(job.outputs.order_by("id"))
    assert outputs[0].name == "result.json"
    with default_storage.open(outputs[0].key) as stored:
        result = json.load(stored)
    assert result["ad_id"] == str(job.pk)
    assert result["source"]["name"] == next(name for name in params.values() if name.endswith("ad.mp4"))


@pytest.mark.django_db(transaction=True)
def test_a_video_that_never_comes_fails_after_five_attempts(as_ingestion):
    job = as_ingestion(source_type="s3", s3_key="nonexistent/fake-video.mp4")
    while job.status == Status.RETRY:
        job = run_again(job)
    assert (job.status, job.failures, job.error_code) == (Status.FAILED, 5, "input_gone")
    assert "nonexistent/fake-video.mp4" in job.error_message


@pytest.mark.django_db(transaction=True)
def test_a_setting_that_changed_meanwhile_counts(as_ingestion, configure):
    job = as_ingestion(source_type="s3", s3_key="private/a.mp4")
    configure(INGEST_PREFIX="videos/")
    job = run_again(job)
    assert (job.status, job.error_code) == (Status.FAILED, "bad_input")


# --- the transcript ------------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path, configure):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in speech.MODEL_FILES:
        (folder / name).write_text("{}")
    configure(SPEECH_MODEL=str(folder))
    return folder


def test_what_is_said_is_in_the_result(tmp_path, advert, model, monkeypatch):
    plant(monkeypatch, tmp_path / "planted")
    result, rig = ingest(tmp_path / "run", advert)
    assert result["transcript"]["language"] == "en"
    assert [segment["text"] for segment in result["transcript"]["segments"]] == ["Buy one,", "get model “free”."]
    assert result["summary"].endswith("5 words in en: “Buy one, get model “free”.”")
    assert rig.stages == ["validating_input", "pipeline_running", "transcription", "pipeline_running"]
    assert rig.fractions == sorted(rig.fractions)
    assert sum("/input-0" in " ".join(command) for command in rig.commands) == 1


def test_a_video_without_sound_has_no_transcript(tmp_path, material, model, monkeypatch):
    plant(monkeypatch, tmp_path / "planted")
    result, _rig = ingest(tmp_path / "run", material("silent.mp4"))
    assert (result["transcript"], result["transcript_missing"]) == (None, "The video has no sound.")


def test_a_model_that_is_not_there_fails_before_any_work(tmp_path, advert, model):
    (model / "model.bin").unlink()
    rig = rig_for(tmp_path / "run", advert)
    with pytest.raises(JobError) as raised:
        KIND.run(rig)
    assert (raised.value.code, rig.commands) == (ErrorCode.config_error, [])
