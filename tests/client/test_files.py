"""Files up and down: whole, checked, resumed, and the key stays at home."""

import hashlib
import os
from uuid import uuid4

import jobsite_client
import pytest
from jobsite_client import files

from jobs import lifecycle, parts
from jobs.models import Artifact, Upload
from jobs.models.artifact import Damage
from tests import media_files, s3_server
from tests.client import network as networks
from tests.client import work
from tests.client.network import Trouble

CONTENT = os.urandom(700_000)

pytestmark = pytest.mark.once


@pytest.fixture
def made(dish, ann, tmp_path):
    """made(b"…") → the id of a SUCCEEDED job of Ann's with that output, dish.txt."""

    def make(content: bytes = CONTENT) -> str:
        job, _ = lifecycle.submit(ann.pk, "KITCHEN", dish)
        work.finish(work.claimed(), tmp_path, dish_txt=content)
        return str(job.pk)

    return make


@pytest.fixture
def bucket(settings):
    """Files are kept in a bucket, to which a network of its own leads: yields that."""
    with networks.before(s3_server.address()) as network:
        name = f"jobsite-{uuid4().hex[:12]}"
        s3_server.storage(name)  # makes it
        storage = s3_server.storage(name, endpoint=network.url)
        settings.STORAGES = {**settings.STORAGES, "default": storage}
        yield network


def left_over(folder) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_an_upload_is_streamed_told_and_checked(jobs, tmp_path, network):
    film = tmp_path / "a film.mp4"
    film.write_bytes(media_files.clip() + bytes(300_000))
    told = []
    network.plan.append(Trouble("POST", "/api/uploads/", "503"))
    upload = jobs.upload(film, progress=lambda done, whole: told.append((done, whole)))
    assert upload.reference == f"upload:{upload.id}"
    assert (upload.name, upload.content_type) == ("a film.mp4", "video/mp4")
    assert upload.sha256 == hashlib.sha256(film.read_bytes()).hexdigest()
    size = film.stat().st_size
    assert told[-1] == (size, size)
    assert len({done for done, _ in told}) > 3
    keys = {one.headers["Idempotency-Key"] for one in network.asked("POST", "/api/uploads/")}
    assert len(keys) == 1


def test_a_file_that_is_none_of_the_platforms_is_refused(jobs, tmp_path):
    text = tmp_path / "x.mp4"
    text.write_bytes(b"just text")
    with pytest.raises(jobsite_client.InvalidRequest) as caught:
        jobs.upload(text)
    assert caught.value.code == "bad_input"
    assert not Upload.objects.exists()
    with pytest.raises(FileNotFoundError):
        jobs.upload(tmp_path / "none.mp4")


def test_a_large_file_goes_in_parts_without_the_key(jobs, tmp_path, network, bucket, monkeypatch, key):
    monkeypatch.setattr(parts, "PART", 5 * 1024**2)
    monkeypatch.setattr(files, "PARTS_FROM", 1024**2)
    film = tmp_path / "film.mp4"
    film.write_bytes(media_files.clip() + bytes(6 * 1024**2))
    bucket.plan.append(Trouble("PUT", "partNumber=2", "503"))
    told = []
    upload = jobs.upload(film, progress=lambda done, whole: told.append(done))
    assert upload.sha256 == hashlib.sha256(film.read_bytes()).hexdigest()
    assert told == [5 * 1024**2, film.stat().st_size]
    sent = [one for one in bucket.asked("PUT", "partNumber") if "jobsite-client" in one.headers.get("User-Agent", "")]
    assert len(sent) == 3
    assert not [one for one in sent if "Authorization" in one.headers or key in str(one)]


def test_where_there_is_no_bucket_a_large_file_goes_in_one_piece(jobs, tmp_path, network, monkeypatch):
    monkeypatch.setattr(files, "PARTS_FROM", 1)
    film = tmp_path / "film.mp4"
    film.write_bytes(media_files.clip())
    assert jobs.upload(film).bytes == film.stat().st_size
    assert [one.path for one in network.asked("POST", "/")] == ["/api/uploads/multipart/", "/api/uploads/"]


def test_a_download_that_breaks_goes_on_where_it_was(jobs, made, network, tmp_path):
    (output,) = jobs.get(made()).outputs
    network.plan.append(Trouble("GET", "/outputs/", "cut", times=3))
    network.plan.append(Trouble("GET", "/outputs/", "503"))
    target = tmp_path / "here.bin"
    target.write_bytes(b"older")
    told = []
    jobs.download(output, target, progress=lambda done, whole: told.append(done))
    assert target.read_bytes() == CONTENT
    ranges = [one.headers.get("Range") for one in network.asked("GET", "/outputs/")]
    half = len(CONTENT) // 2
    assert ranges[:3] == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert told == sorted(told)
    assert left_over(tmp_path) == []


def test_a_later_call_goes_on_too_and_until_then_nothing_is_there(jobs, made, network, tmp_path, naps):
    (output,) = jobs.get(made()).outputs
    network.plan += [Trouble("GET", "/outputs/", "cut"), Trouble("GET", "/outputs/", "unheard", times=5)]
    with pytest.raises(jobsite_client.ConnectionFailed):
        jobs.download(output, tmp_path)
    assert not (tmp_path / "dish.txt").exists()
    assert len(left_over(tmp_path)) == 1
    assert jobs.download(output, tmp_path) == tmp_path / "dish.txt"
    assert network.asked("GET", "/outputs/")[-1].headers["Range"] == f"bytes={len(CONTENT) // 2}-"
    assert (tmp_path / "dish.txt").read_bytes() == CONTENT


def test_bytes_that_are_not_the_jobs_never_appear(jobs, made, tmp_path, network):
    """Without the comparison the file would be there: half of it is what somebody else left in its place."""
    (output,) = jobs.get(made()).outputs
    network.plan += [Trouble("GET", "/outputs/", "cut"), Trouble("GET", "/outputs/", "unheard", times=5)]
    with pytest.raises(jobsite_client.ConnectionFailed):
        jobs.download(output, tmp_path)
    (part,) = left_over(tmp_path)
    (tmp_path / part).write_bytes(bytes(1000))
    with pytest.raises(jobsite_client.ChecksumMismatch):
        jobs.download(output, tmp_path)
    assert not (tmp_path / "dish.txt").exists()
    assert left_over(tmp_path) == []
    assert jobs.download(output, tmp_path).read_bytes() == CONTENT


def test_an_output_is_read_like_a_file(jobs, made, network, tmp_path):
    (output,) = jobs.get(made()).outputs
    network.plan.append(Trouble("GET", "/outputs/", "cut"))
    with jobs.open(output) as file:
        file.seek(-5, os.SEEK_END)
        assert file.read() == CONTENT[-5:]
        file.seek(0)
        assert file.read() == CONTENT
    Artifact.objects.update(sha256="0" * 64)
    (output,) = jobs.get(output.job_id).outputs
    with pytest.raises(jobsite_client.ChecksumMismatch):
        jobs.open(output)


def test_an_output_that_is_gone_says_so(jobs, made, tmp_path):
    (output,) = jobs.get(made(b"")).outputs
    assert jobs.download(output, tmp_path / "empty").read_bytes() == b""
    (output,) = jobs.get(made(b"soup")).outputs
    Artifact.objects.filter(job_id=output.job_id).update(damage=Damage.CONTENT)
    with pytest.raises(jobsite_client.Gone):
        jobs.download(output, tmp_path / "soup")


def test_a_download_from_the_bucket_takes_no_key_there(jobs, made, tmp_path, network, bucket, key):
    (output,) = jobs.get(made()).outputs
    bucket.seen.clear()
    bucket.plan.append(Trouble("GET", "dish.txt", "cut"))
    assert jobs.download(output, tmp_path / "x").read_bytes() == CONTENT
    fetched = bucket.asked("GET", "dish.txt")
    assert [one.headers.get("Range") for one in fetched] == [None, f"bytes={len(CONTENT) // 2}-"]
    assert all("X-Amz-Signature" in one.path for one in fetched)  # it is that address, and it was opened by it alone
    assert not [one for one in fetched if "Authorization" in one.headers or key in str(one)]
    assert all("Authorization" in one.headers for one in network.asked("GET", "/outputs/"))


def test_a_redirect_gets_the_key_only_at_home(jobs, made, tmp_path, network, server, key):
    """Another port is another server: seen to get the key with the comparison of origins taken out."""
    (output,) = jobs.get(made()).outputs
    path = f"/api/jobs/{output.job_id}/outputs/dish.txt/"
    with networks.before(server) as elsewhere:
        network.plan += [Trouble("GET", path, network.url + path), Trouble("GET", path, elsewhere.url + path)]
        with pytest.raises(jobsite_client.NotAuthenticated):  # it led home, and from there elsewhere
            jobs.download(output, tmp_path / "x")
        assert [key in str(one.headers) for one in network.asked("GET", path)] == [True, True]
        assert [key in str(one.headers) for one in elsewhere.asked("GET", path)] == [False]
    network.plan.append(Trouble("GET", path, path, times=9))
    with pytest.raises(jobsite_client.UnexpectedAnswer):
        jobs.download(output, tmp_path / "x")
