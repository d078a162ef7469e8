"""Submitting through the form that is made of a kind's params; all without JavaScript."""

import re

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from rest_framework import serializers

from jobs import kinds, lifecycle
from jobs.kinds.base import Kind
from jobs.models import Job, Upload
from jobs.web import forms
from tests import media_files
from tests.web.test_pages import text, web
from tokens.models import Account

TYPED = {"prompt": "a quiet harbour", "seconds": "4", "fps": "24", "width": "640", "height": "360", "seed": "0"}
ALL_KINDS = ["ANALYZE", "ENHANCE", "INGEST", "KITCHEN", "RENDER", "STITCH"]


def form_of(kind: str) -> str:
    return web("new-kind", kind)


def clip(name: str = "clip.mp4") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, media_files.clip(), "video/mp4")


def chosen(page: str, name: str) -> list[str]:
    return re.findall(rf'<input type="hidden" name="{name}" value="([^"]+)"', page)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_has_a_form_with_its_params_and_nothing_for_operators(ann_web, client, op, kind):
    page = text(ann_web.get(form_of(kind)))
    one = kinds.get(kind)
    for name in one.Params().fields:
        there = f'id="{name}"' in page
        assert there != (name in one.for_operators or name in one.fixed), name
    client.force_login(op)
    everything = text(client.get(form_of(kind)))
    assert all(f'id="{name}"' in everything for name in one.Params().fields)


def test_there_is_no_form_of_an_unknown_kind(ann_web):
    assert ann_web.get(form_of("NOTHING")).status_code == 404
    assert ann_web.post(web("price", "NOTHING")).status_code == 404
    assert ann_web.get(web("price", "RENDER")).status_code == 405


def test_a_deadline_may_be_asked_for_and_a_wrong_one_is_told_at_its_field(ann_web):
    page = text(ann_web.get(form_of("RENDER")))
    assert "<details><summary>More</summary>" in page and 'id="deadline_minutes"' in page
    for wrong in ("0", "10081", "soon", "1.5"):
        page = text(ann_web.post(form_of("RENDER"), {**TYPED, "do": "submit", "deadline_minutes": wrong}))
        assert "<details open><summary>More" in page and 'id="deadline_minutes-error"' in page, wrong
        assert f'value="{wrong}"' in page and not Job.objects.exists()
    sent = {**TYPED, "key": "a1", "do": "submit", "deadline_minutes": "5"}
    assert ann_web.post(form_of("RENDER"), sent).status_code == 302
    assert Job.objects.get().deadline_seconds == 300
    assert "the deadline it was submitted with" in text(ann_web.get(web("job", Job.objects.get().pk)))
    assert ann_web.post(form_of("RENDER"), {**sent, "deadline_minutes": ""}).status_code == 200  # the key is used
    assert ann_web.post(form_of("RENDER"), {**sent, "key": "a2", "deadline_minutes": ""}).status_code == 302
    assert Job.objects.latest("pk").cancel_at is None


def test_a_render_is_sold_once_however_often_its_form_is_sent(ann_web, ann):
    page = text(ann_web.get(form_of("RENDER")))
    key = re.search(r'name="key" value="(\w+)"', page)[1]
    for _ in range(2):
        answer = ann_web.post(form_of("RENDER"), {**TYPED, "key": key, "do": "submit"})
        assert answer.status_code == 302
    job = Job.objects.get()
    assert answer["Location"] == web("job", job.pk) and job.owner == ann
    assert job.params == {"prompt": "a quiet harbour", "seconds": 4, "fps": 24, "width": 640, "height": 360, "seed": 0}
    assert Account.objects.get(pk=ann.pk).balance == 996
    changed = ann_web.post(form_of("RENDER"), {**TYPED, "prompt": "another", "key": key})
    assert "was sent before" in text(changed) and Job.objects.count() == 1
    fresh = re.search(r'name="key" value="(\w+)"', text(changed))[1]
    assert ann_web.post(form_of("RENDER"), {**TYPED, "prompt": "another", "key": fresh}).status_code == 302


@pytest.mark.parametrize(
    ("name", "typed", "told"),
    [
        ("prompt", "", "This field is required."),
        ("seconds", "soon", "Must be a number."),
        ("seconds", "61", "less than or equal to 60"),
        ("seconds", "1e1", "Must be a number."),
        ("width", "641", "Must be even."),
        ("fps", "24.5", "A valid integer is required."),
        ("image", "upload:nonsense", "Must be upload:"),
        ("image", "upload:00000000-0000-0000-0000-000000000000", "does not exist or is not yours"),
    ],
)
def test_what_is_wrong_is_told_at_its_field_and_what_was_typed_stays(ann_web, name, typed, told):
    answer = ann_web.post(form_of("RENDER"), {**TYPED, "seed": "12345", name: typed})
    page = text(answer)
    at_field = page.partition(f'id="{name}-error">')[2].partition("</div>")[0]
    assert answer.status_code == 200 and told in at_field
    assert f'<a href="#{name}">' in page and 'value="12345"' in page and typed in page
    assert f'aria-describedby="{name}-help {name}-error"' in page or f'aria-describedby="{name}-error"' in page
    assert not Job.objects.exists()


def test_too_few_tokens_is_told_before_and_when_submitting(client, user):
    poor = user("poor", tokens=3)
    client.force_login(poor)
    priced = text(client.post(web("price", "RENDER"), TYPED))
    assert "4 tokens" in priced and "You have 1 token too few." in priced
    refused = text(client.post(form_of("RENDER"), TYPED))
    assert "This job costs 4 tokens." in refused and not Job.objects.exists()


def test_the_price_follows_the_form_without_javascript_too(ann_web):
    assert "price stands here" in text(ann_web.get(form_of("RENDER")))
    shown = text(ann_web.post(form_of("RENDER"), {**TYPED, "seconds": "9.5", "do": "price"}))
    assert "10 tokens" in shown and "990 would be left" in shown and not Job.objects.exists()
    assert "10 tokens" in text(ann_web.post(web("price", "RENDER"), {**TYPED, "seconds": "9.5"}))
    wrong = text(ann_web.post(form_of("RENDER"), {**TYPED, "seconds": "soon", "do": "price"}))
    assert "Must be a number." in wrong and "price stands here" in wrong


def test_clips_come_with_the_form_stay_through_errors_and_keep_their_order(ann_web, ann):
    bad = SimpleUploadedFile("notes.mp4", b"no video", "video/mp4")
    answer = ann_web.post(form_of("STITCH"), {"clips:file": [clip("one.mp4"), bad, clip("two.mp4")], "fps": "x"})
    page = text(answer)
    assert "notes.mp4: The file is not a video" in page and not Job.objects.exists()
    one, two = chosen(page, "clips")
    names = {f"upload:{row.pk}": row.name for row in Upload.objects.all()}
    assert [names[one], names[two]] == ["one.mp4", "two.mp4"] and "one.mp4 (" in page
    moved = text(ann_web.post(form_of("STITCH"), {"clips": [one, two], "do": "up:clips:1"}))
    assert chosen(moved, "clips") == [two, one] and "1 token<" in moved
    less = text(ann_web.post(form_of("STITCH"), {"clips": [two, one], "do": "remove:clips:0"}))
    assert chosen(less, "clips") == [one]
    added = text(ann_web.post(form_of("STITCH"), {"clips": [one], "clips:add": two, "do": "add:clips"}))
    assert chosen(added, "clips") == [one, two]
    assert ann_web.post(form_of("STITCH"), {"clips": [one, two], "do": "submit"}).status_code == 302
    assert Job.objects.get().params == {"clips": [one, two]}


@pytest.mark.parametrize(
    "wish", ["up:clips:9", "remove:clips:x", "remove:clips:²", "up:clips:0", "add:clips", "nonsense", "up::", ":"]
)
def test_buttons_that_lead_nowhere_change_nothing(ann_web, wish):
    page = text(ann_web.post(form_of("STITCH"), {"clips": ["upload:1", "upload:2"], "do": wish}))
    assert chosen(page, "clips") == ["upload:1", "upload:2"] and not Job.objects.exists()


def test_files_of_others_are_neither_offered_nor_taken(ann_web, bob_web, ann):
    ann_web.post(form_of("STITCH"), {"clips:file": [clip("secret.mp4")], "do": "refresh"})
    (theirs,) = [f"upload:{row.pk}" for row in Upload.objects.filter(owner=ann)]
    assert "secret.mp4" in text(ann_web.get(form_of("STITCH")))
    assert "secret.mp4" not in text(bob_web.get(form_of("STITCH")))
    refused = text(bob_web.post(form_of("STITCH"), {"clips": [theirs, theirs]}))
    assert "does not exist or is not yours" in refused and "secret.mp4" not in refused and not Job.objects.exists()


def test_an_operators_param_cannot_be_slipped_in(ann_web):
    answer = ann_web.post(form_of("INGEST"), {"source_type": "path", "path": "movie.mp4"})
    assert answer.status_code == 200 and not Job.objects.exists()


def test_change_and_submit_anew_begins_with_the_old_params(ann_web, bob_web, submit):
    job = submit(price=77)
    like = f"{form_of('KITCHEN')}?like={job.pk}"
    assert 'value="77"' in text(ann_web.get(like)) and 'value="77"' not in text(bob_web.get(like))
    assert ann_web.get(form_of("KITCHEN") + "?like=x").status_code == 200
    Job.objects.filter(pk=job.pk).update(kind="STITCH", params={"clips": 5})  # as an import may bring it
    assert chosen(text(ann_web.get(f"{form_of('STITCH')}?like={job.pk}")), "clips") == []


def test_what_the_brakes_refuse_is_told_in_the_form(ann_web, submit, monkeypatch):
    monkeypatch.setitem(settings.JOBSITE, "JOBS_PER_USER", 1)
    submit()
    answer = ann_web.post(form_of("RENDER"), TYPED)
    assert "At most 1 of your jobs may be active at once." in text(answer) and Job.objects.count() == 1


def test_a_form_takes_no_more_than_an_upload_may_have(ann_web, monkeypatch):
    monkeypatch.setitem(settings.JOBSITE, "UPLOAD_MAX_BYTES", 100)
    answer = ann_web.post(form_of("STITCH"), {"clips:file": [clip()]})
    assert answer.status_code == 400 and not Upload.objects.exists()


@pytest.mark.parametrize(
    ("typed", "is_read_as"),
    [
        ("4", 4),
        (" 4 ", 4),
        ("4.5", 4.5),
        ("4,5", 4.5),
        ("-1", -1),
        ("1e9", "1e9"),
        ("NaN", "NaN"),
        ("9" * 30, "9" * 30),
    ],
)
def test_numbers_are_read_as_they_are_written(typed, is_read_as):
    field = forms.Field("n", "n", "number", value=typed)
    assert forms.params([field]) == {"n": is_read_as}


def test_a_kind_of_ones_own_gets_a_control_for_each_of_its_fields():
    class Odd(Kind):
        class Params(serializers.Serializer):
            words = serializers.ListField(child=serializers.CharField())
            table = serializers.DictField(required=False)
            loud = serializers.BooleanField(default=True)
            name = serializers.CharField(max_length=20, default="x")

    made = forms.fields(Odd(), operator=False)
    assert [field.control for field in made] == ["lines", "json", "check", "text"]
    made[0].value, made[1].value, made[2].value = "a\n\n b ", '{"k": 1}', ""
    assert forms.params(made) == {"words": ["a", "b"], "table": {"k": 1}, "loud": False, "name": "x"}
    made[1].value = "[" * 5000
    assert forms.params(made)["table"] == "[" * 5000


def test_eta_is_a_range_of_what_jobs_like_it_took(ann_web, running, submit):
    for _ in range(3):
        lifecycle.succeed(running(), [])
    lease = running()
    lifecycle.beat(lease, progress=0.5, stage="cooking")
    assert "about 10 s left" in text(ann_web.get(reverse("web:job", args=[lease.job_id])))


def test_what_only_operators_need_not_give_is_required_of_others(ann_web, client, op):
    assert "(optional)" not in re.search(r'<label for="upload">.*?</label>', ann_web.get(form_of("INGEST")).text)[0]
    client.force_login(op)
    assert "(optional)" in re.search(r'<label for="upload">.*?</label>', client.get(form_of("INGEST")).text)[0]
