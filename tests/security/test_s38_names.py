"""S38: a name that a user or a kind gave to a file does no harm: in a header, on a screen, on a disk."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from jobs import uploads
from jobs.api.outputs import download_name
from jobs.models import Upload
from tests import media_files
from tests.clients import ApiClient

EVIL = [
    "a\r\nSet-Cookie: stolen=1.mp4",
    "a\nContent-Type: text/html.mp4",
    "\u202egnp.exe",
    "invoice\u202efdp.exe",
    "\u2066x\u2069.mp4",
    "con",
    "con.exe",
    "NUL.txt",
    "com1.mp4",
    "LPT9",
    "../../etc/passwd",
    "..\\..\\windows\\system.ini",
    "/etc/passwd",
    "C:\\autoexec.bat",
    '"; filename="evil.html',
    "a;b=c.mp4",
    "a%0d%0ab.mp4",
    "file:stream.mp4",
    ".htaccess",
    "..",
    ".",
    "",
    " ",
    "trailing. . ",
    "x" * 400 + ".mp4",
    "caf\u00e9 \U0001f600.mp4",
    "a\x00b.mp4",
    "a\x7fb.mp4",
    "<img src=x>.mp4",
    "$(reboot).mp4",
    "a|b&c.mp4",
]


@pytest.mark.parametrize("name", EVIL)
def test_a_downloaded_name_is_plain_on_every_system(name):
    plain = download_name(name)
    assert plain.isascii() and 1 <= len(plain) <= 150
    assert not set(plain) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert plain[0] != "." and plain[-1] != "."
    stem = plain.partition(".")[0].upper()
    assert stem not in ("CON", "NUL", "COM1", "LPT9")


@pytest.mark.parametrize("name", ["result.json", "chart-1.png", "keyframe-001.jpg", "console.txt"])
def test_a_plain_name_stays(name):
    assert download_name(name) == name


@pytest.mark.parametrize("name", ["con.txt", "a.html", "x.svg"])
def test_a_download_is_a_file_to_keep_under_that_name(ann, succeeded, name):
    job = succeeded(b"<script>", name, "text/html")
    answer = ApiClient(ann).get(f"/api/jobs/{job.pk}/outputs/{name}")
    answer.close()
    assert answer["Content-Disposition"] == f'attachment; filename="{download_name(name)}"'
    assert answer["Content-Type"] == "application/octet-stream" and answer["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", EVIL)
def test_what_an_upload_is_called_is_one_plain_line(name):
    label = uploads.label(name)
    assert label and len(label) <= 200 and label.isprintable() and "/" not in label and "\\" not in label


def test_an_upload_of_such_a_name_is_kept_under_a_key_of_ours(ann):
    file = SimpleUploadedFile("..\\..\\\u202ecod.exe", media_files.clip(), "video/mp4")
    made = ApiClient(ann).post("/api/uploads/", {"file": file})
    kept = Upload.objects.get()
    assert made.status_code == 201 and kept.key == f"uploads/{kept.pk}" and kept.name == "cod.exe"
