"""Every page of the user's, on a desktop, by night and on a phone: nothing for axe-core to find, nothing wider than its
screen; and the pictures of docs/pages.md (SCREENSHOTS=1)."""

from datetime import timedelta

import pytest
from django.core import signing
from django.utils import timezone

from jobs import keys, lifecycle, sign_up, webhooks
from jobs.errors import ErrorCode, JobError
from jobs.models import Job, Status
from tests import media_files
from tests.browser.conftest import DESKTOP, PHONE
from tests.browser.test_s26_xss import output
from tokens import ledger

pytestmark = pytest.mark.once
RENDER = {"seconds": 8.0, "fps": 24, "width": 1280, "height": 720, "seed": 7}
DAWN = "gradients=s=640x360:r=12:d=2:n=4:c0=0x134e4a:c1=0x0f766e:c2=0xfbbf24:c3=0xf97316:seed=4:speed=0.02"
PAGES = ["jobs/", "jobs/new/", "jobs/new/STITCH/", "tokens/", "keys/", "webhooks/", "account/", "password/"]


@pytest.fixture
def shop(site, ann) -> dict[str, str]:
    """Ann with a job in every state; returns their ids by status."""
    made = {}

    def render(prompt: str, seconds: float = 8.0):
        return lifecycle.submit(ann.pk, "RENDER", RENDER | {"prompt": prompt, "seconds": seconds})[0]

    for prompt in ("paper boats on a pond", "a lighthouse in fog", "the market, an hour before it opens"):
        render(prompt)
        done = lifecycle.claim("gpu")
        clip = output("video.mp4", media_files.made("-f", "lavfi", "-i", DAWN, "-pix_fmt", "yuv420p"))
        lifecycle.succeed(done, lifecycle.artifacts.store(done.job_id, done.attempt, [clip]))
        made[Status.SUCCEEDED] = done.job_id
    made[Status.CANCELED] = lifecycle.cancel(render("rain on a tin roof", 20).pk, by=f"user:{ann.pk}").pk
    render("a very long walk", 45)
    lease = lifecycle.claim("gpu")
    lifecycle.fail(lease, JobError(ErrorCode.bad_input, "image holds no picture."))
    made[Status.FAILED] = lease.job_id
    render("a quiet harbour at dawn")
    lease = lifecycle.claim("gpu")
    lifecycle.beat(lease, progress=0.42, stage="drawing")
    later = timezone.now() + timedelta(minutes=5)  # no beat comes from nobody: else the page says that it is overdue
    Job.objects.filter(pk=lease.job_id).update(heartbeat_at=later)
    made[Status.RUNNING] = lease.job_id
    made[Status.QUEUED] = render("the same harbour at night").pk
    keys.issue(ann, "laptop")
    ledger.purchase(ann.pk, 500, reference="order 1017")
    return {str(status): str(job) for status, job in made.items()}


@pytest.mark.parametrize(
    ("name", "options", "kept"),
    [
        ("desktop", {}, {"jobs", "running", "result", "form"}),
        ("dark", {"dark": True}, {"running", "failed"}),
        ("phone", {"viewport": PHONE}, {"jobs", "running", "form"}),
    ],
)
def test_no_page_has_an_accessibility_fault_or_is_wider_than_its_screen(
    shop, browse, ann, picture, faults, settings, name, options, kept
):
    settings.MAIL = True
    settings.JOBSITE = {**settings.JOBSITE, "SIGN_UP": "open"}
    page = browse(ann, **{"viewport": DESKTOP, **options})
    pictures = {
        "jobs/": "jobs",
        f"jobs/{shop['RUNNING']}/": "running",
        f"jobs/{shop['SUCCEEDED']}/": "result",
        f"jobs/{shop['FAILED']}/": "failed",
    }
    found = {}
    for address in [*PAGES, *(f"jobs/{job}/" for job in shop.values())]:
        page.goto(f"/my/{address}")
        found[address] = faults(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{address} is too wide ({name})"
        if pictures.get(address) in kept:
            picture(page, f"user-{pictures[address]}-{name}")
    endpoint, _ = webhooks.create(ann.pk, url="https://example.com/told")
    for address in (f"webhooks/{endpoint.pk}/", "jobs/?search=status:nothing", "jobs/new/RENDER/"):
        page.goto(f"/my/{address}")
        page.locator("summary").first.click()
        found[address] = faults(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{address} is too wide ({name})"
    page.fill("#prompt", "a quiet harbour at dawn")
    page.fill("#seconds", "soon")
    page.wait_for_selector("#price:has-text('stands here')")
    page.click("#submit")
    page.wait_for_selector("[role=alert]")
    found["an error in a form"] = faults(page)
    page.fill("#seconds", "12")
    page.wait_for_selector("#price:has-text('12 tokens')")
    page.goto("/my/jobs/new/RENDER/")
    page.fill("#prompt", "a quiet harbour at dawn")
    page.wait_for_selector("#price:has-text('4 tokens')")
    if "form" in kept:
        picture(page, f"user-form-{name}")
    stranger = browse(**options)
    join = signing.dumps(["carol", "carol@example.com"], salt=sign_up.SALT)
    for address in ("/sign-in/", "/sign-up/", "/sign-up/sent/", f"/sign-up/{join}/"):
        stranger.goto(address)
        found[address] = faults(stranger)
        assert stranger.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{address} is too wide ({name})"
        )
    assert {address: wrong for address, wrong in found.items() if wrong} == {}


@pytest.fixture
def faults():
    """faults(page) → every rule of axe-core that the page breaks, serious or not."""
    from axe_playwright_python.sync_playwright import Axe

    return lambda page: [(fault["id"], fault["impact"]) for fault in Axe().run(page).response["violations"]]
