"""The operator's cleanup: a dry run shows what would be done, its page does it."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.messages import get_messages
from django.db.models.functions import Now
from django.urls import reverse

from jobs.models import CleanupRun, Job

DIALOG = {"_form_submitted": "True"}
START = "admin:jobs_job_clean_up_stuck"


@pytest.fixture
def stuck(running):
    """Two jobs without a beat for long: one with budget left, one without; and a healthy one."""
    from datetime import timedelta

    silent = [running(), running(max_attempts=1)]
    Job.objects.filter(pk__in=[lease.job_id for lease in silent]).update(heartbeat_at=Now() - timedelta(hours=1))
    running()
    return [lease.job_id for lease in silent]


def test_a_dry_run_shows_what_would_be_done_then_it_is_done(client, op, ann, stuck):
    client.force_login(op)
    answer = client.post(reverse(START), DIALOG)
    dry = CleanupRun.objects.get()
    assert answer["HX-Redirect"] == reverse("admin:jobs_cleanuprun_change", args=[dry.pk])
    page = client.get(answer["HX-Redirect"]).content.decode()
    assert re.search(rf">\s*{op.username}\s*<", page.partition(">By<")[2].partition(">Mode<")[0])
    assert "worker_timeout: tried again" in page and "worker_timeout: failed, 10 tokens refunded" in page
    assert set(Job.objects.values_list("status", flat=True)) == {"RUNNING"}

    button = reverse("admin:jobs_cleanuprun_clean_up_now", args=[dry.pk])
    assert button in page
    client.get(button)  # only asks
    assert set(Job.objects.values_list("status", flat=True)) == {"RUNNING"}
    answer = client.post(button, DIALOG)
    run = CleanupRun.objects.get(dry_run=False)
    assert (run.by, run.found, run.cleaned, run.retried, run.tokens_refunded) == (f"user:{op.pk}", 2, 2, 1, 10)
    told = " ".join(str(message) for message in get_messages(answer.wsgi_request))
    assert told == "Cleaned up 2 of 2 stuck jobs: 1 will be tried again, 1 failed; 10 tokens refunded."
    assert told in str(LogEntry.objects.get().get_change_message())
    assert sorted(Job.objects.values_list("status", flat=True)) == ["FAILED", "RETRY", "RUNNING"]
    page = client.get(reverse("admin:jobs_cleanuprun_change", args=[run.pk])).content.decode()
    assert "clean_up_now" not in page and "RETRY" in page
    assert (
        "is not stuck any more" in client.get(reverse("admin:jobs_cleanuprun_change", args=[dry.pk])).content.decode()
    )


@pytest.mark.parametrize("wrong", [{"timeout": "1"}, {"timeout": "-5"}, {"timeout": "1e300"}, {"batch_size": "0"}])
def test_a_timeout_that_would_hit_healthy_runs_is_refused_by_name(client, op, stuck, wrong):
    client.force_login(op)
    answer = client.post(reverse(START), DIALOG | wrong)
    told = " ".join(str(message) for message in get_messages(answer.wsgi_request))
    assert f"Nothing was done: {next(iter(wrong))}: Must be" in told
    assert not CleanupRun.objects.exists()


def test_words_and_nan_stay_in_the_dialog(client, op):
    client.force_login(op)
    for wrong in ("soon", "nan"):
        answer = client.post(reverse(START), DIALOG | {"timeout": wrong})
        assert answer.status_code == 200 and "HX-Redirect" not in answer
    assert not CleanupRun.objects.exists()
