"""The operator at work in a browser: the first screen, a stuck job cleaned up, failures retried; desktop and phone."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.utils import timezone
from playwright.sync_api import expect

from jobs import lifecycle, stats
from jobs.admin.dashboard import figures
from jobs.errors import ErrorCode, JobError
from jobs.models import Job, Sample, Slot, Tick
from tests.browser.conftest import PHONE
from tests.jobs.conftest import PARAMS
from tokens.models import Account

pytestmark = pytest.mark.once  # what the pages ask of the database is asked in tests/jobs/admin on both


@pytest.fixture(autouse=True)
def _fresh():
    figures.forget()
    yield
    figures.forget()


@pytest.fixture
def operator(user):
    person = user("olga", tokens=0, is_staff=True)
    person.groups.add(Group.objects.get(name="operator"))
    return person


@pytest.fixture
def busy(site, ann):
    """A platform with something of everything; returns its stuck job."""
    now = timezone.now()
    slot = Slot.objects.create(
        host="gpu-1", boot_id="b", pid=41, process_started=1, queues=["cpu", "gpu", "remote"], claimed_at=now
    )
    Slot.objects.create(host="cpu-1", boot_id="b", pid=52, process_started=1, queues=["cpu"], claimed_at=now)
    Tick.objects.update(ran_at=now)

    def claimed(**params):
        lifecycle.submit(ann.pk, "KITCHEN", PARAMS | params)
        return lifecycle.claim("cpu", slot.pk)

    for _ in range(3):
        lifecycle.succeed(claimed(), [])
    for code in (ErrorCode.bad_input, ErrorCode.bad_input, ErrorCode.ffmpeg_error):
        lifecycle.fail(claimed(), JobError(code))
    stuck = claimed()
    Job.objects.filter(pk=stuck.job_id).update(
        heartbeat_at=now - timedelta(minutes=20), started_at=now - timedelta(minutes=25), failures=2, stage="drawing"
    )
    claimed()
    for _ in range(4):
        lifecycle.submit(ann.pk, "KITCHEN", PARAMS)
    Sample.objects.bulk_create(
        Sample(
            at=now - timedelta(minutes=minute + 1),
            queued=abs(minute % 40 - 20) // 2,
            oldest_wait=float(minute % 30),
            running=2 + (minute % 7 > 3),
            free_slots=1 - minute % 9 // 8,
            succeeded=3 + minute // 60 % 5,
            failed=int(minute % 47 == 0),
            canceled=int(minute % 71 == 0),
            earned=30 + minute // 60 % 5 * 10,
            refunded=10 * int(minute % 47 == 0),
        )
        for minute in range(60 * 24)
    )
    stats.take_sample()
    return Job.objects.get(pk=stuck.job_id)


def test_a_stuck_job_is_cleaned_up_from_the_first_screen(browse, busy, operator, ann, picture, well):
    page = browse(operator)
    page.goto("/admin/")
    assert str(busy.pk) in page.inner_text("#board")
    picture(page, "operator-desktop")
    well(page, within="#board")
    before = Account.objects.get(pk=ann.pk).balance
    page.get_by_role("button", name="Clean up: show what would be done").click()
    page.wait_for_url("**/cleanuprun/**")
    expect(page.locator("#content")).to_contain_text("10 tokens refunded")
    picture(page, "operator-dry-run")
    page.get_by_text("Clean up now").first.click()
    page.get_by_role("button", name="Clean up", exact=True).click()
    page.get_by_text("Cleaned up 1 of 1 stuck jobs").wait_for()
    busy.refresh_from_db()
    assert busy.status == "FAILED" and Account.objects.get(pk=ann.pk).balance == before + 10
    page.goto("/admin/")
    assert "Nothing is stuck." in page.inner_text("#board")
    assert "olga: cleanup" in page.inner_text("#board")


def test_failures_are_retried_as_a_group_with_the_price_said_first(browse, busy, operator, ann, well):
    page = browse(operator)
    page.goto("/admin/")
    row = page.get_by_role("row", name="bad_input")
    expect(row.get_by_role("cell").nth(2)).to_have_text("2")
    row.get_by_role("link", name="Retry…").click()
    expect(page.locator("#content")).to_contain_text("Retry 2 of 2 matching jobs in this go: 20 tokens charged.")
    well(page, within="#content")
    before = Account.objects.get(pk=ann.pk).balance
    page.get_by_role("button", name="Retry 2 jobs").click()
    page.get_by_text("Retried 2 jobs; 20 tokens charged.").wait_for()
    assert Account.objects.get(pk=ann.pk).balance == before - 20


@pytest.mark.parametrize(("name", "how"), [("phone", {"viewport": PHONE}), ("dark", {"dark": True})])
def test_the_first_screen_fits_a_phone_and_the_dark(browse, busy, operator, name, how, picture, well):
    page = browse(operator, **how)
    page.goto("/admin/")
    page.wait_for_selector("#board")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    picture(page, f"operator-{name}")
    well(page, within="#board")
