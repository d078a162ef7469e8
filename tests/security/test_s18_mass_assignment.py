"""S18: no field of a model can be set by naming it."""

import pytest

from jobs.models import Job
from tests.clients import ApiClient, codes
from tokens.models import Account, Transaction

pytestmark = pytest.mark.django_db
ASKED = {"kind", "params", "priority", "metadata", "max_attempts", "deadline_seconds"}  # what a submit may say
NAMES = [field.attname for field in Job._meta.concrete_fields] + ["user", "owner", "is_staff", "is_superuser", "charge"]


@pytest.mark.parametrize("name", sorted({*NAMES} - ASKED))
def test_a_submit_cannot_set_a_field(as_ann, name):
    for place in ({name: 1}, {"params": {name: 1}}):
        if name == "price" and "params" in place:  # KITCHEN's price is a parameter
            continue
        answer = as_ann.send("/api/jobs/", {"kind": "KITCHEN", **place})
        assert (answer.status_code, set(codes(answer).values())) == (400, {"unknown_field"})
    assert not Job.objects.exists()


def test_a_submit_that_says_only_what_it_may_is_sold(as_ann):
    assert as_ann.send("/api/jobs/", {"kind": "KITCHEN", "params": {}, "metadata": {"status": "x"}}).status_code == 202


@pytest.mark.parametrize("name", sorted({field.attname for field in Transaction._meta.concrete_fields} - {"kind"}))
def test_a_booking_cannot_set_a_field(op, ann, name):
    if name in ("amount", "reference", "reason"):
        return
    body = {"user": ann.pk, "amount": 1, "reference": "r", name: 1}
    assert codes(ApiClient(op, "finance").send("/api/admin/tokens/", body)) == {name: "unknown_field"}
    assert Account.objects.get(pk=ann.pk).balance == 1000


def test_an_upload_cannot_set_a_field(as_ann):
    answer = as_ann.post("/api/uploads/", {"owner_id": "1", "content_type": "video/mp4"})
    assert codes(answer) == {"content_type": "unknown_field", "owner_id": "unknown_field", "file": "required"}
