"""S26: what users write is text, on their own pages and in the admin: nothing of it runs, and the
Content-Security-Policy has nothing to refuse, since nothing of it became markup in the first place."""

import json
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib import admin
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, TimeoutError

from jobs import artifacts, keys, lifecycle
from jobs.models import Delivery, Endpoint, Job, JobEvent, Upload
from jobs.web.context import SECTIONS
from tests.jobs.conftest import PARAMS
from tokens import ledger

pytestmark = pytest.mark.once
RUN = "window.xss=1;alert(1)"
PAYLOADS = [
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</textarea><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</pre></td></dd><script>{RUN}</script>",
    f"--><script>{RUN}</script>",
    f"<img src=x onerror='{RUN}'>",
    f'"><img src=x onerror="{RUN}">',
    f"'><img src=x onerror='{RUN}'>",
    f"</option></select><img src=x onerror='{RUN}'>",
    f"<svg onload='{RUN}'>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin='{RUN}' attributeName=x dur=1s>",
    f"<details open ontoggle='{RUN}'>x</details>",
    f"<input autofocus onfocus='{RUN}'>",
    f'" autofocus onfocus="{RUN}" x="',
    '<iframe srcdoc="<script>parent.window.xss=1;parent.alert(1)</script>"></iframe>',
    "<iframe src='javascript:parent.window.xss=1;parent.alert(1)'></iframe>",
    f"<object data='javascript:{RUN}'></object>",
    f"<a href='javascript:{RUN}'>click</a>",
    f"<form action='javascript:{RUN}'><button>x</button></form>",
    f"<video><source onerror='{RUN}'></video>",
    f"<audio src=x onerror='{RUN}'></audio>",
    f"<body onload='{RUN}'>",
    f"<style onload='{RUN}'></style>",
    f"<math><mtext><img src=x onerror='{RUN}'></mtext></math>",
    f"<div hx-get='/livez' hx-trigger='load' hx-on::after-request='{RUN}'>htmx</div>",
    f"<div x-data x-init='{RUN}'>alpine</div>",
    "{{ 7|add:7 }}{% load static %}<b id=markup>bold</b>",
    f"\u202e<script>{RUN}</script>`${{{RUN}}}`",
]


@pytest.fixture
def seeded(site, ann, running) -> list:
    """Every payload in every text of Ann's; returns the ids of her jobs that carry them."""
    made = []
    for start in range(0, len(PAYLOADS), 10):
        some = PAYLOADS[start : start + 10]
        job, _ = lifecycle.submit(ann.pk, "KITCHEN", PARAMS, metadata={text: text for text in some})
        lifecycle.cancel(job.pk, by=f"user:{ann.pk}")
        told = " ".join(some)[:1000]
        about = {"code": f"{some[0]} x"} | {f"p{number}": text for number, text in enumerate(some)} | {"list": some}
        Job.objects.filter(pk=job.pk).update(params=PARAMS | about, error_message=told, stage=some[1][:40])
        JobEvent.objects.filter(job=job).update(message=told)
        ledger.grant(ann.pk, 1, reason=told)
        made.append(job.pk)
    for number, text in enumerate(PAYLOADS):
        about = {"bytes": 1, "sha256": "0" * 64, "content_type": "video/mp4"}
        Upload.objects.create(owner=ann, name=text[:200], key=f"uploads/x{number}", **about)
        keys.issue(ann, text[:80])
    for number, text in enumerate(PAYLOADS[:3]):
        about = {"salt": "s", "hint": "abcd", "cursor": 0, "failures": 1, "failing_since": timezone.now()}
        url = f"https://example.com/?{PAYLOADS[number + 6]}"
        endpoint = Endpoint.objects.create(owner=ann, url=url, description=text[:80], **about)
        said = {"at": timezone.now().isoformat(), "status": 500, "seconds": 0.1, "error": text, "excerpt": PAYLOADS[7]}
        Delivery.objects.create(endpoint=endpoint, type="job.failed", body=json.dumps(PAYLOADS), log=[said], attempts=1)
    columns = {"columns": [{"name": text} for text in PAYLOADS]}
    lease = running()
    files = {"result.json": json.dumps(columns), "profile.csv": ",".join(PAYLOADS), "dish.txt": " ".join(PAYLOADS)}
    lifecycle.succeed(lease, artifacts.store(lease.job_id, lease.attempt, [output(*file) for file in files.items()]))
    ann.first_name, ann.last_name = PAYLOADS[0][:150], PAYLOADS[6][:150]
    ann.save()
    return [*made, lease.job_id]


def output(name: str, content: str | bytes) -> artifacts.Output:
    """A finished file as a run names it."""
    path = Path(settings.WORK_ROOT) / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sealed = Future()
    sealed.set_result(artifacts.seal(path))
    types = {"json": "application/json", "csv": "text/csv", "txt": "text/plain", "mp4": "video/mp4"}
    return artifacts.Output(path, name, types[name.rpartition(".")[2]], sealed)


def admin_pages() -> list[str]:
    """The list of everything in the admin, and the newest of each; of jobs the four that carry payloads."""
    pages = [reverse("admin:index")]
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        pages.append(reverse(f"{name}_changelist"))
        newest = model.objects.order_by("-pk").values_list("pk", flat=True)
        pages += [reverse(f"{name}_change", args=[pk]) for pk in newest[: 4 if model is Job else 1]]
    return pages


def visit(page: Page, addresses: list[str]) -> None:
    """Open them all; AssertionError if anything of a payload ran, or became markup."""
    ran: list[str] = []

    def dismiss(dialog):
        ran.append(f"{page.url}: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", dismiss)
    for address in addresses:
        page.goto(address)
        look(page, ran)
    assert ran == []  # what the policy had to refuse fails in `browse`


def look(page: Page, ran: list[str]) -> None:
    flagged = page.evaluate(
        """() => [window.xss, document.querySelectorAll(
            "[onerror],[onload],[onfocus],[onbegin],[ontoggle],[x-init*=xss],[hx-on\\\\:\\\\:after-request],#markup," +
            "[href^=javascript],[action^=javascript],[srcdoc]").length]"""
    )
    if flagged != [None, 0]:
        ran.append(f"{page.url}: {flagged}")


def test_the_payloads_run_where_nothing_is_escaped(chromium):
    """The probe without the defence: most of them run by themselves in a bare page (the rest wants a click, or htmx or
    Alpine)."""
    page = chromium.new_page()
    page.on("dialog", lambda dialog: dialog.dismiss())
    live = 0
    for payload in PAYLOADS:
        page.goto("about:blank")
        page.set_content(f'<!doctype html><title>x</title><input value="{payload}">{payload}')
        with suppress(TimeoutError):
            page.wait_for_function("window.xss === 1", timeout=500)
            live += 1
    page.close()
    assert live >= 18


def test_on_the_users_pages_they_are_text(seeded, browse, ann):
    page = browse(ann)
    mine = [f"/my/jobs/{job}/" for job in seeded]
    rest = [f"/my/jobs/{job}/live/" for job in seeded] + ["/my/jobs/new/STITCH/"]
    again = [f"/my/jobs/new/KITCHEN/?like={job}" for job in seeded]
    hooks = [reverse("web:webhook", args=[endpoint.pk]) for endpoint in Endpoint.objects.all()]
    hooks += [reverse("web:webhook-delivery", args=[sent.endpoint_id, sent.pk]) for sent in Delivery.objects.all()]
    visit(page, [*mine, *rest, *again, *hooks, *(section.url for section in SECTIONS)])
    page.goto("/my/jobs/new/RENDER/")
    page.fill("#prompt", " ".join(PAYLOADS)[:2000])
    page.fill("#seconds", PAYLOADS[7])
    page.fill("#seed", PAYLOADS[15])
    page.click("#submit")
    page.wait_for_selector("[role=alert]")
    ran: list[str] = []
    look(page, ran)
    assert ran == [] and page.input_value("#seconds") == PAYLOADS[7]


def test_in_the_admin_they_are_text(seeded, browse, op):
    visit(browse(op), admin_pages())
