"""S31: no name that comes from outside becomes a path."""

import os
from pathlib import Path

import pytest
from django.conf import settings as configured
from django.core.files.storage import default_storage

from jobs import uploads
from jobs.models import Artifact, Upload
from tests.clients import codes

pytestmark = pytest.mark.django_db
NAMES = [
    *("../../../etc/passwd", "/etc/passwd", "..", ".", "%2e%2e%2fx", "..%2f..%2fx", "a/../../b", "..\\..\\x", "C:\\x"),
    *("-y", "%d.mp4", "pipe:0", "concat:a|b", "file:///etc/passwd", "x\x00.mp4", "a" * 4096, "\u202egpj.exe"),
]


@pytest.mark.parametrize("name", NAMES)
def test_an_uploads_name_is_no_path(as_ann, monkeypatch, name):
    monkeypatch.setattr(uploads, "_judged", lambda path: uploads.Judged("video/mp4"))
    # Written by hand: the test client would clean the name before sending it.
    raw = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + name.encode() + b'"\r\n'
        b"Content-Type: video/mp4\r\n\r\ncontent\r\n--b--\r\n"
    )
    answer = as_ann.generic("POST", "/api/uploads/", raw, content_type="multipart/form-data; boundary=b")
    root = Path(configured.STORAGE_ROOT)
    stored = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert stored == {f"uploads/{upload.pk}" for upload in Upload.objects.all()}
    if answer.status_code == 201:
        kept = answer.json()["name"]
        assert "/" not in kept
        assert "\\" not in kept
        assert len(kept) <= 200
        assert kept.isprintable()
    else:
        assert answer.status_code == 400, answer.content


@pytest.mark.parametrize(
    "name", ["..%2f..%2fjobsite.sqlite3", "%2e%2e", "..", "../../secret_key", "%2fetc%2fpasswd", "dish.txt%00", "."]
)
def test_an_outputs_name_is_looked_up_and_never_opened(as_ann, succeeded, name):
    job = succeeded()
    assert as_ann.get(f"/api/jobs/{job.pk}/outputs/{name}").status_code == 404
    assert as_ann.get(f"/api/jobs/{job.pk}/outputs/{name}/").status_code == 404


def test_a_key_that_leaves_the_storage_is_not_followed(as_ann, succeeded):
    """Even a row that was tampered with: the storage refuses paths outside of its root."""
    job = succeeded()
    Artifact.objects.update(key="../secret_key", bytes=os.path.getsize(configured.HOME / "secret_key"))
    answer = as_ann.get(f"/api/jobs/{job.pk}/outputs/dish.txt/")
    assert answer.status_code == 400
    assert not answer.streaming


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "/etc/passwd",
            "../../etc/passwd",
            "upload:../../etc/passwd",
            "upload:%2e%2e",
            "file:///etc/passwd",
            "upload:",
        ),
        *(
            "job:..",
            "job:01a20c28-079b-77dc-baa7-db67398a7898/../x",
            "http://127.0.0.1/x",
            "concat:a|b",
            "-i",
            "lavfi:x",
        ),
        *("upload:01a20c28-079b-77dc-baa7-db67398a7898/../x", "subfile,,start,0,end,9,,:/etc/passwd"),
    ],
)
def test_an_input_is_an_id(as_ann, reference):
    answer = as_ann.send("/api/jobs/", {"kind": "STITCH", "params": {"clips": [reference, reference]}})
    assert (answer.status_code, set(codes(answer).values())) == (400, {"invalid"})


def test_a_link_in_the_storage_is_not_somebody_elses_file(as_ann, succeeded):
    """Size and row are compared, so a file that was swapped for a link to another is told as gone."""
    job = succeeded()
    path = Path(default_storage.path(Artifact.objects.get().key))
    path.unlink()
    path.symlink_to(configured.HOME / "secret_key")
    assert as_ann.get(f"/api/jobs/{job.pk}/outputs/dish.txt/").json()["code"] == "output_gone"
