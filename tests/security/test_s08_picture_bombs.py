"""S05, S08: pictures that are small as files and huge, endless or damaged as pictures; the web process decodes none."""

import resource
import sys
import time

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from jobs.engines import media, pictures, process
from jobs.models import Upload
from tests.jobs.engines.test_upscale import REFUSED
from tests.jobs.kinds import photos

pytestmark = pytest.mark.django_db


def bring(client, content: bytes):
    return client.post("/api/uploads/", {"file": SimpleUploadedFile("holiday.jpg", content)})


@pytest.mark.parametrize("name", ["bomb", "jpeg bomb", "pages", "animated webp", "95% of a jpg"])
def test_is_refused_quickly_by_a_child_and_this_process_decodes_nothing(as_ann, tmp_path, monkeypatch, name):
    content = REFUSED[name][0](tmp_path).read_bytes()
    monkeypatch.setattr(pictures, "vips", lambda: pytest.fail("decoded in the web process"))
    monkeypatch.setitem(sys.modules, "av", None)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    answer = bring(as_ann, content)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (answer.status_code, answer.json()["code"], Upload.objects.count()) == (400, "bad_input", 0)
    assert time.monotonic() - began < 60
    assert used.ru_utime - before.ru_utime < 5


def test_many_frames_are_counted_not_drawn(as_ann, tmp_path):
    """1,000 frames in one WebP: its header says so."""
    frames = photos.frames(1000, 16, 16)
    path = photos.write(frames, tmp_path / "many.webp", effort=0)
    answer = bring(as_ann, path.read_bytes())
    assert "is animated or has several pages" in answer.json()["detail"]


def test_a_picture_of_the_largest_size_fits_the_childs_memory(tmp_path):
    """What is let through is decoded within the probe's limits; one row more is refused."""
    side = 8192
    path = tmp_path / "largest.png"
    path.write_bytes(photos.png(side, side, pixels=bytes((side // 8 + 1) * side)))
    video = media.probe(path, limits=process.Limits(seconds=60, memory_bytes=media.PROBE_LIMITS.memory_bytes)).video
    assert (video.width, video.height) == (side, side)
    path.write_bytes(photos.png(side, side + 1, pixels=bytes((side // 8 + 1) * (side + 1))))
    with pytest.raises(media.JobError, match="more than 67108864 pixels"):
        media.probe(path)
