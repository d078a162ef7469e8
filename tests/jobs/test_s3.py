"""A bucket does all that a folder does, against a real S3 server."""

import hashlib
import io
import logging
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from urllib3.exceptions import SSLError

from jobs import artifacts, blobs, health, lifecycle, parts, uploads
from jobs.errors import JobError
from jobs.kinds.base import Abort
from jobs.models import Artifact, JobInput, PartUpload, Upload
from tests import media_files, s3_server
from tests.clients import codes, content

pytestmark = pytest.mark.django_db


@pytest.fixture
def bucket(settings):
    """The storage is a prefix of a new bucket; the bucket's name."""
    name = f"jobsite-{uuid4().hex[:12]}"
    settings.STORAGES = {**settings.STORAGES, "default": s3_server.storage(name, prefix="some/prefix")}
    return name


def put(key: str, body: bytes = b"content") -> str:
    return default_storage.save(key, ContentFile(body))


# --- the storage ------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_read_told_listed_and_deleted(bucket):
    assert put("jobs/a/1/x.txt", b"0123456789") == "jobs/a/1/x.txt"
    assert put("jobs/a/1/x.txt", b"9876543210") == "jobs/a/1/x.txt"  # in its place, not beside it
    put("jobs/a/10/y.txt")
    with default_storage.open("jobs/a/1/x.txt") as stored:
        assert (stored.size, stored.read(4), stored.tell()) == (10, b"9876", 4)
        assert (stored.seek(-3, io.SEEK_END), stored.read()) == (7, b"210")
        assert (stored.seek(2), stored.read(3), stored.read()) == (2, b"765", b"43210")
    assert stored.closed
    assert [blob.key for blob in blobs.listing("jobs/a/1")] == ["jobs/a/1/x.txt"]  # not those of jobs/a/10
    assert default_storage.listdir("jobs/a") == (["1", "10"], [])
    assert default_storage.listdir("jobs/a/1") == ([], ["x.txt"])
    default_storage.delete("jobs/a/1/x.txt")
    default_storage.delete("jobs/a/1/x.txt")
    assert not default_storage.exists("jobs/a/1/x.txt")
    for look in (default_storage.open, default_storage.size, default_storage.get_modified_time):
        with pytest.raises(FileNotFoundError):
            look("jobs/a/1/x.txt")


def test_a_line_that_breaks_while_an_object_comes_may_be_better_the_next_time(bucket, monkeypatch):
    put("jobs/a/1/x.txt")
    with default_storage.open("jobs/a/1/x.txt") as stored:

        def broken(amount=None):
            raise SSLError("decryption failed or bad record mac")

        monkeypatch.setattr(stored._body._raw_stream, "read", broken)
        with pytest.raises(blobs.Passing):
            stored.read(4)


def test_a_listing_of_more_than_a_page_of_a_bucket_that_others_use_too(bucket, monkeypatch):
    monkeypatch.setattr("jobs.s3.PAGE", 3)
    for number in range(7):
        put(f"jobs/{number}/1/x")
        s3_server.ask("PUT", f"/{bucket}/jobs/others", b"x")
    assert [blob.key for blob in blobs.listing("jobs")] == [f"jobs/{number}/1/x" for number in range(7)]


def test_a_large_file_goes_in_parts_and_no_type_makes_it_a_page(bucket):
    large = bytes(20 * 1024**2)
    put("jobs/a/1/page.html", large)
    assert default_storage.size("jobs/a/1/page.html") == len(large)
    assert default_storage._head("jobs/a/1/page.html")["ContentType"] == "application/octet-stream"


def test_no_key_and_no_signature_is_logged_or_shown(bucket, caplog):
    caplog.set_level(logging.INFO)
    put("jobs/a/1/x")
    shown = repr(default_storage) + str(vars(default_storage.__class__)) + caplog.text
    default_storage.download_url("jobs/a/1/x", seconds=60, disposition="attachment", content_type="text/plain")
    assert s3_server.SECRET not in shown + caplog.text
    assert "Signature" not in caplog.text
    assert logging.getLogger("botocore").getEffectiveLevel() == logging.WARNING


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [("http://127.0.0.1:9", "S3 does not answer"), (None, "S3 answered 404 NoSuchBucket")],
)
def test_a_storage_that_is_not_there_is_red_and_507(bucket, settings, as_ann, endpoint, words):
    options = {**settings.STORAGES["default"]["OPTIONS"], "bucket_name": "no-such-bucket"}
    if endpoint:
        options["endpoint_url"] = endpoint
    settings.STORAGES = {**settings.STORAGES, "default": {"BACKEND": "jobs.s3.S3", "OPTIONS": options}}
    check = health._ask_storage()
    assert not check.ok
    assert words in check.detail
    answer = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("x.png", media_files.picture())})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert not Upload.objects.exists()


def test_the_health_probe_writes_and_leaves_nothing(bucket):
    assert health._ask_storage().ok
    assert blobs.listing("health") == []


# --- artefacts --------------------------------------------------------------------------------------------------------


def test_an_output_is_stored_fetched_and_discarded(bucket, succeeded, submit, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    job = succeeded(b"0123456789")
    row = Artifact.objects.get()
    assert f"Save file dish.txt for job {job.pk}: Attempt 1/3" in caplog.messages
    needed = JobInput(pk=1, job=submit(), reference=f"job:{job.pk}", artifact=row)
    looks = []
    assert artifacts.fetch(needed, tmp_path, lambda: looks.append(1)).read_bytes() == b"0123456789"
    assert looks
    put(f"jobs/{job.pk}/1/unnamed.txt")
    assert [blob.key for blob in artifacts.orphans()] == [f"jobs/{job.pk}/1/unnamed.txt"]
    assert artifacts.sweep() == 1
    assert artifacts.discard(job.pk) == 0
    row.delete()
    assert artifacts.discard(job.pk) == 1
    assert artifacts.free_bytes() > 0  # of the home's disk


def test_what_the_operator_keeps_in_the_bucket_is_fetched_by_its_key(bucket, tmp_path):
    put("videos/ad.mp4", b"0123456789")
    got = artifacts.fetch_key("videos/ad.mp4", tmp_path / "x", 10, lambda: None)
    assert got.read_bytes() == b"0123456789"
    for key, most, code in (("videos/ad.mp4", 9, "bad_input"), ("videos/none.mp4", 10, "input_gone")):
        with pytest.raises(JobError) as refused:
            artifacts.fetch_key(key, tmp_path / "x", most, lambda: None)
        assert refused.value.code.name == code


def test_a_kinds_abort_ends_a_copy(bucket, succeeded, submit, tmp_path):
    needed = JobInput(pk=1, job=submit(), reference="x", artifact=succeeded().outputs.get())

    def abort():
        raise Abort

    with pytest.raises(Abort):
        artifacts.fetch(needed, tmp_path, abort)


@pytest.mark.django_db(transaction=True)
def test_a_deleted_job_takes_its_objects_with_it(bucket, succeeded, as_ann):
    job = succeeded()
    link = as_ann.get(f"/api/jobs/{job.pk}/outputs/dish.txt/").headers["Location"]
    assert s3_server.ask("GET", link).status == 200
    assert lifecycle.delete(job.pk, by="test") == 1
    assert blobs.listing("jobs") == []
    assert s3_server.ask("GET", link).status in (403, 404)  # FAULTS S30


# --- downloads --------------------------------------------------------------------------------------------------------


def test_a_download_leads_to_the_bucket_for_ten_minutes(bucket, succeeded, as_ann, as_bob):
    made = bytes(range(256)) * 100
    job = succeeded(made, "film.mp4", "video/mp4")
    path = f"/api/jobs/{job.pk}/outputs/film.mp4/"
    assert as_bob.get(path).status_code == 404
    answer = as_ann.get(path)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (302, "no-store")
    link = urlsplit(answer.headers["Location"])
    asked = {name: values[0] for name, values in parse_qs(link.query).items()}
    assert 0 < int(asked["X-Amz-Expires"]) <= 600
    assert asked["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert asked["response-content-disposition"] == 'attachment; filename="film.mp4"'
    assert asked["response-content-type"] == "video/mp4"
    assert s3_server.SECRET not in link.query
    got = s3_server.ask("GET", answer.headers["Location"])
    assert got.content == made
    assert got.headers["Content-Disposition"] == 'attachment; filename="film.mp4"'
    part = s3_server.ask("GET", answer.headers["Location"], Range="bytes=5-9")
    assert (part.status, part.content) == (206, made[5:10])


def test_head_304_416_and_what_went(bucket, succeeded, as_ann):
    job = succeeded(b"0123456789", "page.html", "text/html")
    path = f"/api/jobs/{job.pk}/outputs/page.html/"
    tag = f'"{hashlib.sha256(b"0123456789").hexdigest()}"'
    head = as_ann.head(path)
    assert (head.status_code, head.headers["Content-Length"], head.headers["ETag"]) == (200, "10", tag)
    assert as_ann.head(path, headers={"Range": "bytes=2-4"}).headers["Content-Range"] == "bytes 2-4/10"
    assert as_ann.get(path, headers={"If-None-Match": tag}).status_code == 304
    assert as_ann.get(path, headers={"Range": "bytes=10-"}).status_code == 416
    link = as_ann.get(path).headers["Location"]
    assert "response-content-type=application%2Foctet-stream" in link  # never as a page (FAULTS S27)
    put(Artifact.objects.get().key, b"longer than it was")
    assert as_ann.get(path).json()["code"] == "output_gone"
    default_storage.delete(Artifact.objects.get().key)
    assert as_ann.get(path).status_code == 410


def test_links_may_lead_to_another_name_of_the_server(settings, succeeded, as_ann):
    there = s3_server.storage("jobsite-public", public="https://files.example.com")
    settings.STORAGES = {**settings.STORAGES, "default": there}
    job = succeeded()
    link = as_ann.get(f"/api/jobs/{job.pk}/outputs/dish.txt/").headers["Location"]
    assert link.startswith("https://files.example.com/jobsite-public/jobs/")


# --- uploads ----------------------------------------------------------------------------------------------------------


def test_an_upload_goes_into_the_bucket_and_out_of_it(bucket, as_ann):
    file = media_files.picture()
    answer = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("x.png", file)})
    upload = Upload.objects.get()
    assert (answer.status_code, upload.key) == (201, f"uploads/{upload.pk}")
    with default_storage.open(upload.key) as stored:
        assert stored.read() == file
    put("uploads/nobodys")
    assert uploads.orphans() == []  # it may still get its row


def announce(client, size: int, **more):
    return client.send("/api/uploads/multipart/", {"name": "film.mp4", "bytes": size, **more})


def send(urls: list[str], file: bytes, size: int) -> list[str]:
    """PUT the parts of `file`; their ETags."""
    pieces = [file[start : start + size] for start in range(0, len(file), size)]
    return [s3_server.ask("PUT", url, piece).headers["ETag"] for url, piece in zip(urls, pieces, strict=True)]


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART", 5 * 1024**2)


def test_a_large_file_is_brought_in_parts(bucket, as_ann, as_bob, small_parts):
    file = media_files.clip() + bytes(6 * 1024**2)
    sha256 = hashlib.sha256(file).hexdigest()
    begun = announce(as_ann, len(file), sha256=sha256).json()
    assert len(begun["urls"]) == 2
    asked = parse_qs(urlsplit(begun["urls"][0]).query)
    assert int(asked["X-Amz-Expires"][0]) <= 3600
    assert asked["X-Amz-SignedHeaders"] == ["content-length;host"]  # no more bytes than were announced
    tags = send(begun["urls"], file, begun["part_size"])
    path = urlsplit(begun["complete"]).path
    assert as_bob.send(path, {"parts": tags}).status_code == 404
    assert as_ann.get(f"/api/uploads/{begun['id']}/").status_code == 404  # not yet
    answer = as_ann.send(path, {"parts": tags})
    assert answer.status_code == 201
    found = answer.json()
    assert (found["id"], found["bytes"], found["sha256"]) == (begun["id"], len(file), sha256)
    assert (found["name"], found["content_type"]) == ("film.mp4", "video/mp4")
    assert as_ann.send(path, {"parts": tags}).json() == found  # its first answer may have got lost
    assert not PartUpload.objects.exists()
    with default_storage.open(Upload.objects.get().key) as stored:
        assert hashlib.sha256(stored.read()).hexdigest() == sha256


@pytest.mark.parametrize(
    ("file", "announced", "says"),
    [
        (b"just text", {}, "is not a video"),
        (b"GIF89a", {"bytes": 7}, "7 bytes that were announced"),
        (b"GIF89a", {"sha256": "0" * 64}, "SHA-256"),
    ],
)
def test_what_comes_in_parts_is_judged_as_any_upload(bucket, as_ann, file, announced, says):
    begun = announce(
        as_ann,
        announced.get("bytes", len(file)),
        **{name: value for name, value in announced.items() if name != "bytes"},
    ).json()
    tags = send(begun["urls"], file, begun["part_size"])
    answer = as_ann.send(urlsplit(begun["complete"]).path, {"parts": tags})
    assert (answer.status_code, codes(answer)) == (400, {"file": "bad_input"})
    assert says in answer.json()["detail"]
    assert not Upload.objects.exists()
    assert not PartUpload.objects.exists()
    assert blobs.listing("uploads") == []


def test_a_film_that_came_cut_in_parts_is_known_to_be(bucket, as_ann):
    file = media_files.clip(2)
    half = file[: len(file) // 2]
    begun = announce(as_ann, len(half)).json()
    tags = send(begun["urls"], half, begun["part_size"])
    assert as_ann.send(urlsplit(begun["complete"]).path, {"parts": tags}).status_code == 201
    assert Upload.objects.get().cut


def test_parts_that_were_not_sent_are_named_and_may_come_yet(bucket, as_ann):
    file = media_files.picture()
    begun = announce(as_ann, len(file)).json()
    path = urlsplit(begun["complete"]).path
    answer = as_ann.send(path, {"parts": ['"0123456789abcdef0123456789abcdef"']})
    assert (answer.status_code, codes(answer)) == (400, {"parts": "invalid"})
    assert codes(as_ann.send(path, {"parts": []})) == {"parts": "min_length"}
    tags = send(begun["urls"], file, begun["part_size"])
    assert as_ann.send(path, {"parts": tags}).status_code == 201


def test_what_may_be_announced(bucket, as_ann, settings, monkeypatch):
    assert codes(announce(as_ann, 0)) == {"bytes": "min_value"}
    assert codes(announce(as_ann, 5, sha256="x", more=1)) == {"sha256": "invalid", "more": "unknown_field"}
    assert announce(as_ann, settings.JOBSITE["UPLOAD_MAX_BYTES"] + 1).status_code == 413
    monkeypatch.setattr(parts, "OPEN_MOST", 1)
    assert announce(as_ann, 5).status_code == 201
    assert announce(as_ann, 5).status_code == 429


def test_a_folder_takes_no_parts_and_says_where_to_send_the_file(as_ann):
    answer = announce(as_ann, 5)
    assert (answer.status_code, answer.json()["code"]) == (409, "multipart_unavailable")
    assert "/api/uploads/" in str(answer.json())


def test_what_was_begun_and_left_is_given_up(bucket, as_ann, settings):
    begun = announce(as_ann, 5).json()
    send(begun["urls"], b"GIF89", begun["part_size"])
    default_storage.begin_parts("jobs/x/1/killed.mp4")
    assert parts.sweep() == 1  # the killed worker's: this server says of all that they began in 2010
    settings.JOBSITE = {**settings.JOBSITE, "UPLOAD_UNUSED_HOURS": -1}
    assert parts.sweep() == 1
    assert not PartUpload.objects.exists()
    assert default_storage.unfinished() == []
    gone = as_ann.send(urlsplit(begun["complete"]).path, {"parts": ["x"]})
    assert (gone.status_code, content(gone) != b"") == (404, True)
