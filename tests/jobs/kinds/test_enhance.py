"""ENHANCE as a kind: its tiers, prices and limits; what the upload and the submit refuse; runs, cancelled ones too."""

import pytest
import pyvips
from django.core.files.uploadedfile import SimpleUploadedFile

from jobs import artifacts, lifecycle, runner
from jobs.errors import ErrorCode, JobError
from jobs.heartbeat import heart
from jobs.kinds.base import Abort
from jobs.kinds.enhance import LIMITS, Enhance
from jobs.models import Job, Status, Upload
from tests.clients import codes
from tests.jobs.engines.test_process import lives
from tests.jobs.engines.test_upscale import REFUSED, network
from tests.jobs.kinds import photos
from tests.jobs.kinds.rig import Rig, refused, validated
from tokens.models import Account

KIND = Enhance()
IMAGE = "upload:" + "0" * 32
THIN = 96, 12  # pixels: less to compute than a square
ENDINGS = {"jpeg": "jpg", "png": "png", "webp": "webp", "tiff": "tif"}


def rig(folder, path, **params) -> Rig:
    return Rig(folder / "run", validated(KIND, image=IMAGE, **params), {IMAGE: path})


def enhance(folder, path, **params) -> pyvips.Image:
    """The finished picture."""
    one = rig(folder, path, **params)
    KIND.run(one)
    assert one.fractions == sorted(one.fractions)
    assert one.fractions[-1] == pytest.approx(0.99, abs=0.01)
    (made,) = one.outputs.values()
    return pyvips.Image.new_from_file(str(made))


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"image": "/etc/passwd"}, "image"),
        ({"tier": "8K"}, "tier"),
        ({"tier": 1024}, "tier"),
        ({"format": "gif"}, "format"),
        ({"format": "tiff[compression=none]"}, "format"),
        ({"quality": 0}, "quality"),
        ({"quality": 101}, "quality"),
        ({"quality": 90.5}, "quality"),
        ({"quality": "90"}, "quality"),
        ({"denoise": -0.1}, "denoise"),
        ({"denoise": float("nan")}, "denoise"),
        ({"denoise": True}, "denoise"),
        ({"sharpen": 1.1}, "sharpen"),
    ],
)
def test_refuses_by_field(params, field):
    assert set(refused(KIND, **{"image": IMAGE} | params)) == {field}


def test_a_picture_is_needed_and_the_rest_has_defaults():
    assert set(refused(KIND)) == {"image"}
    defaults = {"tier": "2K", "format": "keep", "quality": 90, "denoise": 0.5, "sharpen": 0.25}
    assert validated(KIND, image=IMAGE) == {"image": IMAGE} | defaults


@pytest.mark.parametrize(("tier", "price", "seconds"), [("1K", 2, 300), ("2K", 5, 900), ("4K", 10, 1800)])
def test_price_and_limits_are_by_the_tier(tier, price, seconds):
    params = validated(KIND, image=IMAGE, tier=tier)
    assert (KIND.tier(params), KIND.price(params), KIND.limits_for(params).run) == (tier, price, seconds)
    assert KIND.limits.run == max(limits.run for limits in LIMITS.values()), "Celery's limits follow from it"


@pytest.mark.parametrize(("tier", "side"), [("1K", 1024), ("2K", 2048), ("4K", 4096)])
def test_each_tier_has_its_size(tmp_path, tier, side):
    path = photos.write(photos.drawn(90, 9), tmp_path / "in.jpg")
    made = enhance(tmp_path, path, tier=tier, sharpen=0)
    assert (made.width, made.height) == (side, round(side / 10))


def test_a_larger_picture_is_reduced(tmp_path):
    path = photos.write(photos.drawn(150, 30).zoom(10, 10), tmp_path / "in.png")
    made = enhance(tmp_path, path, tier="1K")
    assert (made.width, made.height) == (1024, 205)
    assert photos.ssim(made, photos.drawn(150, 30).zoom(10, 10).resize(1024 / 1500, vscale=205 / 300)) > 0.95


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        *((ending, "keep") for ending in ENDINGS.values()),
        ("jpg", "png"),
        ("png", "webp"),
        ("webp", "jpeg"),
        ("tif", "jpeg"),
    ],
)
def test_the_format_is_kept_or_the_one_asked_for(tmp_path, source, wanted):
    one = rig(tmp_path, photos.write(photos.drawn(*THIN), tmp_path / f"in.{source}"), tier="1K", format=wanted)
    KIND.run(one)
    assert set(one.outputs) == {f"picture.{source if wanted == 'keep' else ENDINGS[wanted]}"}


def test_quality_counts(tmp_path):
    path = photos.write(photos.drawn(*THIN), tmp_path / "in.png")
    sizes = []
    for quality in (20, 95):
        (tmp_path / str(quality)).mkdir()
        one = rig(tmp_path / str(quality), path, tier="1K", format="jpeg", quality=quality)
        KIND.run(one)
        sizes.append(one.outputs["picture.jpg"].stat().st_size)
    assert sizes[0] * 2 < sizes[1]


def test_the_bytes_count_not_the_name(tmp_path):
    path = photos.write(photos.drawn(*THIN), tmp_path / "in.png").rename(tmp_path / "in.jpg")
    one = rig(tmp_path, path, tier="1K")
    KIND.run(one)
    assert set(one.outputs) == {"picture.png"}


@pytest.mark.parametrize("name", ["bomb", "animated webp", "50% of a jpg", "text"])
def test_what_is_no_picture_fails_with_its_name(tmp_path, name):
    path = REFUSED[name][0](tmp_path) if name in REFUSED else tmp_path / "in.jpg"
    if name == "text":
        path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    one = rig(tmp_path, path)
    with pytest.raises(JobError, match=r"^image ") as raised:
        KIND.run(one)
    assert raised.value.code is ErrorCode.bad_input
    assert one.outputs == {}


def test_cancel_kills_the_child_in_the_middle(tmp_path):
    path = photos.write(photos.drawn(300, 200).zoom(13, 13), tmp_path / "in.jpg")
    one = rig(tmp_path, path, tier="4K", format="png", denoise=1)
    one.abort_when = lambda rig: len(rig.fractions) > 8
    with pytest.raises(Abort):
        KIND.run(one)
    assert one.outputs == {}
    (pid,) = one.pids
    assert not lives(pid)
    assert max(one.fractions) < 0.99


# --- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "model", "drawn"),
    [("auto", "", False), ("auto", "model", True), ("model", "model", True), ("resample", "model", False)],
)
def test_who_enlarges_is_a_setting(tmp_path, settings, engine, model, drawn):
    path = photos.write(photos.plain(64, 8, [200, 100, 50]), tmp_path / "in.png")
    named = network(tmp_path / "model.onnx", gain=0.5) if model else ""
    settings.JOBSITE = settings.JOBSITE | {"ENHANCE_ENGINE": engine, "UPSCALER_MODEL": named}
    made = enhance(tmp_path, path, tier="1K")
    share = 0.5**4 if drawn else 1  # 64 to 1024 pixels: four times by two
    assert made(500, 60) == pytest.approx([200 * share, 100 * share, 50 * share], abs=1)


@pytest.mark.parametrize(
    ("engine", "model"),
    [("dream", ""), ("model", ""), ("auto", "/nowhere/model.onnx"), ("model", "/nowhere/model.onnx")],
)
def test_an_engine_or_model_that_is_not_there_is_the_operators_error(tmp_path, settings, engine, model):
    settings.JOBSITE = settings.JOBSITE | {"ENHANCE_ENGINE": engine, "UPSCALER_MODEL": model}
    one = rig(tmp_path, photos.write(photos.drawn(*THIN), tmp_path / "in.png"))
    with pytest.raises(JobError) as raised:
        KIND.run(one)
    assert raised.value.code is ErrorCode.config_error
    assert "nowhere" not in raised.value.message
    assert one.pids == []


# --- from the upload to the download ---------------------------------------------------------------------------------


def bring(client, content: bytes, name: str):
    return client.post("/api/uploads/", {"file": SimpleUploadedFile(name, content)})


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["animated png", "50% of a jpg"])
def test_no_token_is_spent_on_what_the_upload_refuses(as_ann, tmp_path, name):
    make, reason = REFUSED[name]
    answer = bring(as_ann, make(tmp_path).read_bytes(), "x.jpg")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
    assert reason in answer.json()["detail"]
    assert Upload.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.parametrize(("ending", "kind"), [("jpg", "jpeg"), ("png", "png"), ("webp", "webp"), ("tif", "tiff")])
def test_the_four_formats_are_taken_in(as_ann, tmp_path, ending, kind):
    path = photos.write(photos.drawn(), tmp_path / f"in.{ending}")
    assert bring(as_ann, path.read_bytes(), "x").json()["content_type"] == f"image/{kind}"


@pytest.mark.django_db
def test_a_gif_and_a_video_are_refused_by_the_submit(as_ann, tmp_path):
    gif = photos.write(photos.drawn(), tmp_path / "in.gif").read_bytes()
    reference = bring(as_ann, gif, "x.gif").json()["reference"]
    answer = as_ann.send("/api/jobs/", {"kind": "ENHANCE", "params": {"image": reference}})
    assert (answer.status_code, codes(answer)) == (400, {"params.image": "bad_input"})
    assert "image/gif, not image/jpeg or image/png or image/webp or image/tiff" in answer.content.decode()
    assert Job.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_picture_from_upload_to_download(ann, as_ann, tmp_path, monkeypatch):
    """Also shows that a job is sold with its tier's limits and price."""
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)
    path = photos.write(photos.drawn(), tmp_path / "in.webp")
    reference = bring(as_ann, path.read_bytes(), "cat.webp").json()["reference"]
    asked = {"kind": "ENHANCE", "params": {"image": reference, "tier": "1K", "format": "jpeg"}}
    before = Account.objects.get(pk=ann.pk).balance
    submitted = as_ann.send("/api/jobs/", asked)
    assert submitted.status_code == 202, submitted.content
    job = Job.objects.get()
    assert (job.tier, job.price, job.run_limit, job.stall_limit) == ("1K", 2, 300, 60)
    try:
        runner.run(lifecycle.claim("cpu"))
    finally:
        heart.stop()
    job.refresh_from_db()
    assert (job.status, job.error_message) == (Status.SUCCEEDED, "")
    assert Account.objects.get(pk=ann.pk).balance == before - 2
    output = job.outputs.get()
    assert (output.name, output.content_type) == ("picture.jpg", "image/jpeg")
    with artifacts.default_storage.open(output.key) as stored:
        made = pyvips.Image.new_from_buffer(stored.read(), "")
    assert (made.width, made.height) == (1024, 683)


@pytest.mark.django_db(transaction=True)
def test_what_only_the_job_can_see_is_refunded(ann, as_ann, tmp_path, monkeypatch, settings):
    monkeypatch.setattr(heart, "_end_if_deaf", lambda idle_since: None)
    settings.JOBSITE = settings.JOBSITE | {"UPSCALER_MODEL": "/nowhere/model.onnx"}
    content = photos.write(photos.drawn(), tmp_path / "in.jpg").read_bytes()
    reference = bring(as_ann, content, "cat.jpg").json()["reference"]
    before = Account.objects.get(pk=ann.pk).balance
    as_ann.send("/api/jobs/", {"kind": "ENHANCE", "params": {"image": reference}})
    assert Account.objects.get(pk=ann.pk).balance == before - 5
    try:
        runner.run(lifecycle.claim("cpu"))
    finally:
        heart.stop()
    job = Job.objects.get()
    assert (job.status, job.error_code, job.attempt) == (Status.FAILED, "config_error", 1)
    assert Account.objects.get(pk=ann.pk).balance == before
    assert job.outputs.count() == 0
