"""Policies are written by hand, checked, and hold at once in the process that wrote them; alerts can be quietened."""

import pytest
from django.urls import reverse

from jobs import policies
from jobs.models import Alert, Policy

pytestmark = pytest.mark.django_db
ADD = "admin:jobs_policy_add"


@pytest.fixture
def send(client, op):
    """send(kind="RENDER", …) → the answer to the form."""
    client.force_login(op)
    return lambda **fields: client.post(reverse(ADD), fields)


def test_a_policy_is_written_and_holds(send):
    assert policies.rule("RENDER", "4K").price_percent == 100
    assert send(kind="RENDER", tier="4K", price_percent=150, run_limit=600).status_code == 302
    assert (policies.rule("RENDER", "4K").price_percent, policies.rule("RENDER").price_percent) == (150, 100)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "DANCE"}, "DANCE is not one of the available choices"),
        ({"kind": "RENDER", "tier": "9K"}, "RENDER has no such tier"),
        ({"kind": "RENDER", "price_percent": 1001}, "less than or equal to 1000"),
        ({"kind": "RENDER", "max_attempts": 11}, "less than or equal to 10"),
        ({"kind": "RENDER", "run_limit": 10_000_000}, "Must be at most"),
        ({"kind": "RENDER", "timeout_seconds": 3}, "Must be from"),
    ],
)
def test_what_would_not_hold_is_refused_beside_its_field(send, fields, words):
    answer = send(**fields)
    assert answer.status_code == 200 and words in answer.content.decode()
    assert not Policy.objects.exists()


def test_a_second_line_for_the_same_is_refused(send):
    Policy.objects.create(kind="RENDER", price_percent=50)
    assert "There is a policy for this kind and tier already" in send(kind="RENDER").content.decode()


def test_an_alert_is_quietened_for_a_day(client, op):
    client.force_login(op)
    Alert.objects.create(code="refund_volume")
    page = reverse("admin:jobs_alert_changelist")
    client.post(page, {"action": "snooze", "_selected_action": ["refund_volume"]})
    assert Alert.objects.get().snoozed_until is not None
    assert "refund_volume" in client.get(page).content.decode()
