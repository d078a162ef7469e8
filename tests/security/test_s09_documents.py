"""S09: documents that pull in other files are no pictures, whatever they are called."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from jobs.models import Upload

pytestmark = pytest.mark.django_db
CANARY = "file:///etc/hostname"
DOCUMENTS = {
    "picture.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{CANARY}" width="9" height="9"/></svg>',
    "picture.svgz": "\x1f\x8b\x08\x00",
    "declared.png": f'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "{CANARY}">]><svg>&x;</svg>',
    "picture.pdf": f"%PDF-1.7\n1 0 obj<</Type/Filespec/F({CANARY})>>endobj",
    "picture.jpg": f"%!PS-Adobe-3.0 EPSF-3.0\n({CANARY}) (r) file",
    "picture.webp": f"push graphic-context\nimage over 0,0 9,9 '{CANARY}'\n",
    "picture.tif": f"<?xml version='1.0'?><image><read filename='{CANARY}'/></image>",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_is_not_taken_in(as_ann, name):
    content = DOCUMENTS[name].encode("latin-1") + b"\n" * 200
    answer = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile(name, content, content_type="image/png")})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
    assert Upload.objects.count() == 0
