"""S07: a file's own words (title, tags, chapters, comments) with HTML, line ends, sections, a megabyte, bad UTF-8. They
reach no output, no answer and no page; and what FFmpeg itself says of a file is cut, printable and escaped."""

import json
import subprocess
import tempfile
import zlib
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile

from jobs import lifecycle, runner
from jobs.engines import ffmpeg, media
from jobs.heartbeat import heart
from jobs.models import Job
from tests.jobs.engines.test_upscale import enhance
from tests.jobs.engines.whisper import plant
from tests.jobs.kinds.material import material  # noqa: F401 - a fixture
from tests.jobs.kinds.test_ingest import configure, ingest, model  # noqa: F401 - two fixtures
from tests.jobs.kinds.test_stitch import stitch

CANARY = b"canary7"
WORDS = {
    "html": b'canary7 <script>alert(7)</script> "><img src=x onerror=alert(7)>',
    "lines": b"canary7\r\nSet-Cookie: canary7=1\r\n\n[STREAM]\nduration=canary7\n[/FORMAT]\x1b[2J",
    "sections": b"=SECTION canary7\n;FFMETADATA1\n[CHAPTER]\nSTART=-1\n#\\",
    "megabyte": b"canary7 " * (1024**2 // 8),
    "bad UTF-8": b"canary7 \xff\xfe\xc3(\xed\xa0\x80\xe2\x80\xae",
}


def tagged(folder: Path, path: Path) -> Path:
    """A copy of a media file whose fields of text are all of WORDS: of the whole, of each stream and of a chapter."""
    escape = {byte: b"\\" + bytes([byte]) for byte in b"=;#\\\n"}
    escaped = [b"".join(escape.get(byte, bytes([byte])) for byte in words) for words in WORDS.values()]
    names = (b"title", b"artist", b"comment", b"description", b"album")
    tags = b"".join(name + b"=" + words + b"\n" for name, words in zip(names, escaped, strict=True))
    about, into = folder / "about.txt", folder / f"tagged{path.suffix}"
    about.write_bytes(
        b";FFMETADATA1\n" + tags + b"[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\ntitle=" + escaped[1] + b"\n"
    )
    command = [ffmpeg.bundled(), "-v", "error", "-y", "-i", str(path), "-f", "ffmetadata", "-i", str(about)]
    command += ["-map", "0", "-c", "copy", "-map_metadata", "1", "-map_chapters", "1"]
    for stream in "va":
        for name in (b"handler_name", b"title"):
            command += [f"-metadata:s:{stream}", name + b"=" + WORDS["bad UTF-8"]]
    subprocess.run([*command, str(into)], check=True)
    assert CANARY in into.read_bytes(), "the probe: FFmpeg carries words over unless it is told not to"
    return into


def described(path: Path) -> Path:
    """That MP4, changed: the words stand in its sample entry, as the compressor's name and in a box of their own."""
    content = bytearray(path.read_bytes())
    entry = content.index(b"avcC") - 4 - 86
    content[entry + 50 : entry + 82] = b"\x07" + CANARY + bytes(24)  # ISO/IEC 14496-12, 12.1.3: compressorname
    bit_rate = content.index(b"btrt", entry)
    content[bit_rate : bit_rate + 16] = b"name" + CANARY + bytes(5)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("crossfade", [0, 0.2])
def test_no_file_made_of_a_video_and_nothing_read_of_it_holds_them(tmp_path, material, crossfade):  # noqa: F811
    """What is made on the way counts, too: our own writer of films would drop words that FFmpeg had carried over."""
    files = []
    for name in ("plain.mp4", "h264.mkv", "larger.mp4", "tone.mp3"):  # copied, put into MP4, encoded anew, laid below
        (tmp_path / name).mkdir()
        files.append(tagged(tmp_path / name, material(name)))
    *clips, sound = files
    described(clips[0])
    _, _, film = stitch(tmp_path / "stitch", [clips[0], material("longer.mp4"), *clips[1:]], crossfade=crossfade)
    _, _, scored = stitch(tmp_path / "scored", clips[:2], audio=sound, crossfade=crossfade)
    made = [path for rig in (film, scored) for path in rig.workdir.iterdir() if not path.name.startswith("input-")]
    assert {"film.mp4", "part3v.mp4", "part1v.mp4" if crossfade else "remux2.mp4"} <= {path.name for path in made}
    assert [path.name for path in made if CANARY in path.read_bytes()] == []
    assert CANARY.decode() not in str([media.probe(path) for path in files])


def test_no_file_that_ingest_makes_holds_them(tmp_path, material, model, monkeypatch):  # noqa: F811
    """Nor the sound that the speech model is given."""
    plant(monkeypatch, tmp_path / "planted")
    _, rig = ingest(tmp_path / "ingest", tagged(tmp_path, material("plain.mp4")))
    made = [path for path in rig.workdir.iterdir() if not path.name.startswith("input-")]
    assert {"speech.wav", "result.json"} <= {path.name for path in made}
    assert [path.name for path in made if CANARY in path.read_bytes()] == []


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_picture_made_better_holds_none_of_them(tmp_path, ending):
    plain, tagged_ = tmp_path / f"plain.{ending}", tmp_path / f"tagged.{ending}"
    picture = ["-f", "lavfi", "-i", "testsrc2=s=64x64", "-frames:v", "1"]
    subprocess.run([ffmpeg.bundled(), "-v", "error", *picture, str(plain)], check=True)
    content, start = plain.read_bytes(), {"png": 33, "jpg": 2}[ending]
    said = b"".join(WORDS.values())[:60_000]
    if ending == "png":
        body = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + said
        block = len(body[4:]).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    else:
        said = b"http://ns.adobe.com/xap/1.0/\0" + said
        block = b"\xff\xe1" + (len(said) + 2).to_bytes(2, "big") + said
    tagged_.write_bytes(content[:start] + block + content[start:])
    enhance(tagged_, tmp_path)
    assert CANARY not in (tmp_path / f"made.{ending}").read_bytes()


@pytest.mark.django_db
def test_an_uploads_answers_and_pages_show_none_of_them(as_ann, op, client, tmp_path, material):  # noqa: F811
    client.force_login(op)
    content = tagged(tmp_path, material("plain.mp4")).read_bytes()
    answer = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("clip.mp4", content)})
    assert answer.status_code == 201
    unknown = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("clip.mp4", b"RIFF" + content)})
    assert unknown.status_code == 400
    pages = [client.get("/admin/jobs/upload/"), client.get(f"/admin/jobs/upload/{answer.json()['id']}/change/")]
    assert [page.status_code for page in pages] == [200, 200]
    for shown in (answer, unknown, *pages):
        assert CANARY not in shown.content


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("words", WORDS)
def test_what_ffmpeg_says_is_cut_printable_and_escaped(as_ann, ann, op, client, monkeypatch, words):
    """A planted FFmpeg fails and quotes the file."""
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "words").write_bytes(WORDS[words])
        program = Path(folder) / "ffmpeg"
        program.write_text(f"#!/bin/sh\ncat {folder}/words >&2\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setattr(settings, "JOBSITE", settings.JOBSITE | {"FFMPEG": str(program)})
        params = {"prompt": "x", "seconds": 1.0, "fps": 8, "width": 64, "height": 64, "seed": 0}
        job, _ = lifecycle.submit(ann.pk, "RENDER", params)
        runner.run(lifecycle.claim("gpu"))
        heart.stop()
    message = Job.objects.get(pk=job.pk).error_message
    assert message
    assert len(message) <= 500
    assert message.isprintable()
    answer = as_ann.get(f"/api/jobs/{job.pk}/")
    assert message in json.dumps(answer.json(), ensure_ascii=False).replace('\\"', '"')
    assert b"\r" not in answer.content
    client.force_login(op)
    page = client.get(f"/admin/jobs/job/{job.pk}/change/").content
    assert CANARY in page or words == "sections"
    assert b"<script>alert(7)" not in page
    assert b"<img src=x" not in page
