"""Files come in streamed, are judged by their bytes, and go only when nobody needs them."""

import hashlib
import os
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as configured
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from jobs import lifecycle, uploads
from jobs.engines import process
from jobs.models import Job, Upload
from tests import media_files
from tests.clients import codes

pytestmark = pytest.mark.django_db


def bring(client, content: bytes, name: str = "clip.mp4", **more):
    return client.post("/api/uploads/", {"file": SimpleUploadedFile(name, content), **more})


def temporary_files() -> list[Path]:
    return list(Path(configured.FILE_UPLOAD_TEMP_DIR).iterdir())


def test_an_upload_is_stored_measured_and_typed(as_ann):
    content = media_files.clip()
    answer = bring(as_ann, content, "holiday.txt")
    found = answer.json()
    assert answer.status_code == 201
    assert answer.headers["Location"] == found["urls"]["self"]
    assert (found["name"], found["content_type"], found["bytes"]) == ("holiday.txt", "video/mp4", len(content))
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert found["reference"] == f"upload:{found['id']}"
    with default_storage.open(Upload.objects.get().key) as stored:
        assert stored.read() == content
    assert as_ann.get(found["urls"]["self"]).json() == found
    assert as_ann.get("/api/uploads").json()["results"] == [found]
    assert temporary_files() == []


def test_a_large_file_is_never_held_in_memory(as_ann, monkeypatch):
    held = []
    monkeypatch.setattr(uploads, "take_in", lambda owner, **about: held.append(about) or Upload(name="x"))
    bring(as_ann, b"x" * 3_000_000)
    assert isinstance(held[0]["path"], Path)


def test_a_picture_is_an_input_too(as_ann):
    assert bring(as_ann, media_files.picture(), "x.png").json()["content_type"] == "image/png"


def test_a_clip_cut_in_half_is_kept_for_stitch_to_name_it_and_refused_by_all_else(as_ann):
    """Its index in front is whole: what is missing shows when every packet is read."""
    content = media_files.clip(2)
    whole, half = (bring(as_ann, file).json()["reference"] for file in (content, content[: len(content) // 2]))
    ingest = {"kind": "INGEST", "params": {"source_type": "upload", "upload": half}}
    sound = {"kind": "STITCH", "params": {"clips": [whole, whole], "audio": half}}
    for order, param in ((ingest, "params.upload"), (sound, "params.audio")):
        for path in ("/api/jobs/estimate/", "/api/jobs/"):
            answer = as_ann.send(path, order)
            assert (answer.status_code, answer.json()["code"], codes(answer)) == (
                400,
                "bad_input",
                {param: "bad_input"},
            )
            assert answer.json()["errors"][0]["detail"] == f"{half} is cut short: the file ends in the middle."
    assert not Job.objects.exists()
    assert as_ann.send("/api/jobs/", {"kind": "STITCH", "params": {"clips": [whole, half]}}).status_code == 202
    ingest["params"]["upload"] = whole
    assert as_ann.send("/api/jobs/", ingest).status_code == 202


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"just text",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%PDF-1.7\n",
        b"<!doctype html><script>alert(1)</script>",
        b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 100,  # begins like a video and is none
    ],
)
def test_what_is_no_media_is_refused_and_not_kept(as_ann, content):
    answer = bring(as_ann, content)
    assert (answer.status_code, codes(answer)) == (400, {"file": "bad_input"})
    assert answer.json()["code"] == "bad_input"
    assert not Upload.objects.exists()
    assert not default_storage.exists("uploads")
    assert temporary_files() == []


@pytest.mark.parametrize("content", [media_files.sound, media_files.no_pictures])
def test_a_video_without_pictures_is_refused(as_ann, content):
    answer = bring(as_ann, content())
    assert (answer.status_code, codes(answer)) == (400, {"file": "bad_input"})
    assert "video stream" in answer.json()["detail"]


def test_the_form_must_be_one_file_and_nothing_else(as_ann):
    assert codes(as_ann.post("/api/uploads/", {"x": "1"})) == {"x": "unknown_field", "file": "required"}
    assert codes(as_ann.post("/api/uploads/")) == {"file": "required"}
    two = [SimpleUploadedFile("a", b"x"), SimpleUploadedFile("b", b"x")]
    assert codes(as_ann.post("/api/uploads/", {"file": two})) == {"file": "required"}
    assert as_ann.send("/api/uploads/", {}).status_code == 415
    broken = as_ann.generic("POST", "/api/uploads/", b"x", content_type="multipart/form-data")
    assert (broken.status_code, broken.json()["code"]) == (400, "invalid_request")


def test_a_file_over_the_limit_is_413_by_its_length_and_while_it_is_read(as_ann, settings, monkeypatch):
    settings.JOBSITE = {**settings.JOBSITE, "UPLOAD_MAX_BYTES": 1000}
    answer = bring(as_ann, b"x" * 1001)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    monkeypatch.setattr("jobs.api.uploads.OVERHEAD", -1000)
    assert bring(as_ann, b"x").status_code == 413
    assert temporary_files() == []


def test_a_full_disk_is_507(as_ann, settings):
    settings.JOBSITE = {**settings.JOBSITE, "DISK_FREE_BYTES": 2**60}
    assert bring(as_ann, b"x").json()["code"] == "storage_full"


def test_nobody_fills_the_disk_with_what_no_job_uses(as_ann, as_bob, settings):
    clip = media_files.clip()
    settings.JOBSITE = {**settings.JOBSITE, "UPLOADS_UNUSED_BYTES": 2 * len(clip)}
    first, second = (bring(as_ann, clip).json()["reference"] for _ in range(2))
    refused = bring(as_ann, clip)
    assert (refused.status_code, refused.json()["code"], temporary_files()) == (409, "too_many_uploads", [])
    assert bring(as_bob, clip).status_code == 201
    job = as_ann.send("/api/jobs/", {"kind": "STITCH", "params": {"clips": [first, second]}})
    assert (job.status_code, bring(as_ann, clip).status_code) == (202, 201)


def test_a_storage_that_refuses_is_507_and_leaves_nothing(as_ann, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(default_storage, "save", full)
    answer = bring(as_ann, media_files.clip())
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert not Upload.objects.exists()
    assert temporary_files() == []


def test_production_without_walls_reads_no_media(as_ann, settings, monkeypatch):
    settings.PRODUCTION = True
    monkeypatch.setattr(process, "walls", lambda: process.Walls(missing=["unshare"]))
    assert bring(as_ann, media_files.clip()).json()["code"] == "sandbox_missing"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\temp\\a.mp4", "a.mp4"),
        ("a\r\nb\x00c\u202ed\x1b[1m.mp4", "abcd[1m.mp4"),
        ("", "upload"),
        ("..", ".."),
        ("-y %d pipe:0", "-y %d pipe:0"),
        ("x" * 4096, "x" * 200),
    ],
)
def test_a_name_is_only_a_label(given, kept):
    assert uploads.label(given) == kept


@pytest.fixture
def kept(ann):
    """An upload of Ann's, without asking FFmpeg."""

    def make(content_type: str = "video/mp4", **fields) -> Upload:
        number = Upload.objects.count()
        key = default_storage.save(f"uploads/{number}", SimpleUploadedFile("x", b"content"))
        return Upload.objects.create(
            owner=ann, name="x", key=key, bytes=7, sha256="0" * 64, content_type=content_type, **fields
        )

    return make


def stitch(client, *clips: Upload):
    return client.send("/api/jobs/", {"kind": "STITCH", "params": {"clips": [f"upload:{clip.pk}" for clip in clips]}})


def test_an_upload_goes_unless_a_live_job_needs_it(as_ann, kept):
    first, second = kept(), kept()
    job = stitch(as_ann, first, second).json()
    answer = as_ann.delete(f"/api/uploads/{first.pk}/")
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_in_use")
    lifecycle.cancel(job["id"], by="test")
    assert as_ann.delete(f"/api/uploads/{first.pk}").status_code == 204
    assert as_ann.get(f"/api/uploads/{first.pk}").status_code == 404


@pytest.mark.django_db(transaction=True)
def test_the_file_goes_with_the_row(as_ann, kept):
    upload = kept()
    assert as_ann.delete(f"/api/uploads/{upload.pk}").status_code == 204
    assert not default_storage.exists(upload.key)


def test_inputs_must_be_ones_own_and_of_the_asked_type(as_bob, as_ann, kept):
    mine, picture = kept(), kept("image/png")
    answer = stitch(as_bob, mine, mine)
    assert (answer.status_code, answer.json()["code"]) == (400, "input_not_found")
    assert codes(answer) == {"params.clips.0": "input_not_found", "params.clips.1": "input_not_found"}
    answer = stitch(as_ann, mine, picture)
    assert (answer.status_code, answer.json()["code"], codes(answer)) == (
        400,
        "bad_input",
        {"params.clips.1": "bad_input"},
    )
    assert not Job.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_sweep_takes_what_nobody_uses(as_ann, kept):
    long_ago = timezone.now() - timedelta(hours=25)
    used, unused, fresh = kept(created_at=long_ago), kept(created_at=long_ago), kept()
    stitch(as_ann, used, used)
    orphan = default_storage.save("uploads/orphan", SimpleUploadedFile("x", b"x"))
    assert uploads.sweep_unused() == 1  # the orphan may still get its row
    assert set(Upload.objects.all()) == {used, fresh}
    assert not default_storage.exists(unused.key)
    path = Path(default_storage.path(orphan))

    os.utime(path, (0, 0))
    broken_off = Path(configured.FILE_UPLOAD_TEMP_DIR) / "broken.upload"
    broken_off.write_bytes(b"x")
    os.utime(broken_off, (0, 0))
    assert uploads.sweep_unused() == 2
    assert not path.exists()
    assert temporary_files() == []


def test_an_upload_that_ends_during_the_sweep_does_not_end_it(monkeypatch):
    """Its temporary file is gone between the list and the look."""
    folder = Path(configured.FILE_UPLOAD_TEMP_DIR)
    for name in ("a.upload", "b.upload"):
        (folder / name).write_bytes(b"x")
        os.utime(folder / name, (0, 0))
    plain = Path.iterdir

    def iterdir(path):
        found = list(plain(path))
        found[0].unlink()
        return iter(found)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", iterdir)
        assert uploads._sweep_temporary() == 1
    assert temporary_files() == []


def test_a_key_brings_one_upload(as_ann, as_bob):
    content = media_files.clip()
    with_key = {"headers": {"Idempotency-Key": "one"}}
    first = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("a.mp4", content)}, **with_key)
    again = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("a.mp4", content)}, **with_key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    assert Upload.objects.count() == 1
    other = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("a.mp4", content + b"0")}, **with_key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert as_ann.send("/api/jobs/", {"kind": "KITCHEN"}, Idempotency_Key="one").status_code == 422
    his = as_bob.post("/api/uploads/", {"file": SimpleUploadedFile("a.mp4", content)}, **with_key)
    assert his.status_code == 201
    assert as_ann.delete(first.json()["urls"]["self"]).status_code == 204
    gone = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("a.mp4", content)}, **with_key)
    assert gone.status_code == 404


@pytest.mark.django_db(transaction=True)
def test_a_key_that_comes_twice_at_once_brings_one_upload(ann, tmp_path, monkeypatch):
    """The second looks before the first has written: the database refuses its row, and it takes the first one's."""

    def bring_it():
        path = tmp_path / "clip.mp4"
        path.write_bytes(media_files.clip())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return uploads.take_in(ann.pk, path=path, sha256=digest, name="a.mp4", key="one")

    first = bring_it()
    answers = iter([None, first])
    monkeypatch.setattr(uploads, "made_by", lambda *asked: next(answers))
    assert bring_it() == first
    assert [blob.key for blob in uploads.blobs.listing("uploads")] == [first.key]
