"""The first screen: as many statements for one job as for many, each figure right and leading to its rows."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from jobs import health, lifecycle, stats, verdict
from jobs.admin.dashboard import figures
from jobs.errors import ErrorCode, JobError
from jobs.models import Alert, Breaker, Job, JobEvent, Pause, Sample, Slot, Status, Tick

PAYLOAD = "<script>alert('x')</script>"


@pytest.fixture(autouse=True)
def _fresh(db):
    figures.forget()
    yield
    figures.forget()


@pytest.fixture
def board(client, op):
    """The first screen's HTML, asked anew."""
    client.force_login(op)

    def see() -> str:
        figures.forget()
        answer = client.get(reverse("admin:index"))
        assert answer.status_code == 200
        return answer.content.decode()

    return see


def ended(running, count: int, code=ErrorCode.bad_input, **fields) -> None:
    for _ in range(count):
        lease = running()
        if code is None:
            lifecycle.succeed(lease, [])
        else:
            lifecycle.fail(lease, JobError(code, PAYLOAD))
        Job.objects.filter(pk=lease.job_id).update(**fields)


def linked(client, page: str, name: str) -> int:
    """How many rows the list has that a figure leads to."""
    address = re.search(rf'<a href="([^"]*)">\s*<span>{name}</span>', page)[1].replace("&amp;", "&")
    return len(client.get(address).context["cl"].result_list)


def number(page: str, name: str) -> str:
    return re.search(rf"<span>{name}</span><b>([^<]*)</b>", page)[1]


def test_it_costs_the_same_for_one_job_and_for_many_and_counts_no_table(board, running, submit):
    ended(running, 1)
    submit()
    board()
    with CaptureQueriesContext(connection) as few:
        board()
    ended(running, 25)
    ended(running, 5, None)
    for _ in range(10):
        submit()
    running()
    with CaptureQueriesContext(connection) as many:
        board()
    of_jobs = [[query for query in asked if "jobs_job" in query["sql"]] for asked in (few, many)]
    assert len(of_jobs[0]) == len(of_jobs[1]) > 5  # policies and the ledger's check are remembered for a while
    assert abs(len(few) - len(many)) <= 2 and len(many) < 60
    for query in many:
        if "COUNT(" in query["sql"] and "jobs_job" in query["sql"]:
            assert "LIMIT" in query["sql"], query["sql"]


@pytest.mark.once  # the plan in words is SQLite's
@pytest.mark.parametrize(
    "address",
    ["/admin/", "/admin/jobs/job/?status=FAILED", "/admin/jobs/job/?status=WAITING", "/admin/jobs/job/?q=user:ann"],
)
def test_no_statement_scans_the_jobs(client, op, running, submit, address):
    """Seen to fail: without the index job_ended, and without `finished_at IS NOT NULL` in the list of failed jobs."""
    ended(running, 2)
    submit(), running()
    client.force_login(op)
    client.get(address)
    figures.forget()
    with CaptureQueriesContext(connection) as asked:
        client.get(address)
    for query in asked:
        if query["sql"].startswith(("SELECT", "\nWITH", "\nSELECT")) and "jobs_job" in query["sql"]:
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
                plan = [row[3] for row in cursor.fetchall()]
            assert not [line for line in plan if re.match(r"SCAN jobs_job(?! USING)", line)], query["sql"]
            assert "FAILED" not in address or "USE TEMP B-TREE FOR ORDER BY" not in plan, (plan, query["sql"])


def test_within_its_seconds_it_asks_only_who_is_there(board, client, submit):
    submit()
    board()
    with CaptureQueriesContext(connection) as again:
        client.get(reverse("admin:index"))
    assert not [query for query in again if "jobs_" in query["sql"]]


def test_the_six_figures_and_the_groups_are_right_and_lead_to_their_rows(board, client, running, submit):
    Slot.objects.create(host="h", boot_id="b", pid=1, process_started=1, queues=["cpu"])
    ended(running, 2)
    ended(running, 1, ErrorCode.ffmpeg_error, finished_at=timezone.now() - timedelta(hours=3))
    running()
    submit()
    Job.objects.filter(pk=submit(priority=-1).pk).update(run_after=timezone.now() - timedelta(minutes=5))
    page = board()
    assert number(page, "Waiting") == "2" and number(page, "Oldest wait") == "5 min"
    assert number(page, "Running") == "1"
    assert number(page, "Failed, 1 h") == "2" and number(page, "Refunded, 24 h") == "30"
    assert number(page, "Free slots") == "1"
    groups = {(group.code, group.kind): group for group in stats.failures()}
    bad, ffmpeg = groups["bad_input", "KITCHEN"], groups["ffmpeg_error", "KITCHEN"]
    assert (bad.hour, bad.day, bad.week, bad.price) == (2, 2, 2, 20)
    assert (ffmpeg.hour, ffmpeg.day, ffmpeg.week) == (0, 1, 1)
    assert PAYLOAD not in page and "&lt;script&gt;" in page
    for address in set(re.findall(r'href="(/admin/[^"]*)"', page.partition('id="board"')[2])):
        assert client.get(address.replace("&amp;", "&")).status_code == 200, address
    later = Job.objects.filter(pk=submit().pk)
    later.update(status=Status.RETRY, attempt=1, run_after=timezone.now() + timedelta(hours=1))
    page = board()
    assert number(page, "Waiting") == "3" and linked(client, page, "Waiting") == 3
    queue = later.get().queue
    assert len(client.get(f"/admin/jobs/job/?queue={queue}&status=WAITING").context["cl"].result_list) == 3
    old = running()
    lifecycle.fail(old, JobError(ErrorCode.bad_input))
    Job.objects.filter(pk=old.job_id).update(finished_at=timezone.now() - timedelta(days=2))
    stats.take_sample()
    assert linked(client, board(), "Refunded, 24 h") == 4
    of_day = re.search(r'Failed <b><a href="([^"]*)"', page)[1].replace("&amp;", "&")
    assert old.job_id not in {job.pk for job in client.get(of_day).context["cl"].result_list}
    of_group = re.search(r'href="([^"]*error_code=bad_input[^"]*)"', page)[1].replace("&amp;", "&")
    assert {job.error_code for job in client.get(of_group).context["cl"].result_list} == {"bad_input"}


def test_counts_stop_at_their_cap_and_say_so(board, submit, monkeypatch):
    monkeypatch.setattr(stats, "CAP", 2)
    for _ in range(4):
        submit()
    page = board()
    assert number(page, "Waiting") == "2+" and number(page, "Oldest wait").startswith("at least")
    assert str(stats.capped(Job.objects.all(), 2)) == "2+" and str(stats.capped(Job.objects.all(), 4)) == "4"


def test_a_sample_counts_what_ended_since_the_last_one_exactly_once(running):
    ended(running, 3, None)
    ended(running, 2)
    Job.objects.filter(finished_at__isnull=False).update(finished_at=timezone.now() - timedelta(seconds=30))
    first = stats.take_sample()
    assert (first.succeeded, first.failed, first.earned) == (3, 2, 30)
    again = stats.take_sample()
    assert (again.succeeded, again.failed) == (0, 0)
    ended(running, 1, None)  # within the seconds that are left to the next sample
    assert stats.take_sample().succeeded == 0
    Sample.objects.filter(pk=first.pk).update(at=timezone.now() - timedelta(days=9))
    stats.take_sample()
    assert not Sample.objects.filter(pk=first.pk).exists()
    assert stats.day().total("succeeded") == 0


def test_the_day_is_told_by_hours_and_by_kind(running):
    ended(running, 4, None)
    now = timezone.now()
    for seconds, job in enumerate(Job.objects.order_by("pk"), start=1):
        Job.objects.filter(pk=job.pk).update(
            created_at=now - timedelta(seconds=10 + seconds),
            started_at=now - timedelta(seconds=seconds),
            finished_at=now,
        )
    Sample.objects.create(
        at=now,
        queued=1,
        oldest_wait=1,
        running=1,
        free_slots=1,
        succeeded=3,
        failed=1,
        canceled=2,
        earned=7,
        refunded=5,
    )
    day = stats.day()
    assert day.success == 0.75 and day.total("earned") == 7 and day.hours[-1].ended == 6
    (line,) = stats.times()
    assert line[:2] == ("KITCHEN", 4)
    assert line.run_p50 == pytest.approx(2, abs=0.1) and line.run_p95 == pytest.approx(4, abs=0.1)
    assert line.wait_p95 == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize(
    ("wrong", "level", "words", "page"),
    [
        ([], "green", "All is well.", ""),
        ([("tick_dispatch_due", False), ("worker_gpu", False)], "red", "A queue has no worker: gpu", "jobs_slot"),
        ([("tick_dispatch_due", False)], "red", "A watchman is late: dispatch_due", "jobs_tick"),
        ([("ledger", False)], "red", "Balances and ledger differ", "tokens_account"),
        ([("something_new", False)], "red", "something_new is not well", ""),
        ([("paused_gpu", True)], "amber", "The operator holds a queue: gpu", "jobs_pause"),
        ([("breaker_llm", True)], "amber", "An outside service is left alone: llm", "jobs_breaker"),
    ],
)
def test_the_verdict_is_the_worst_in_one_sentence_with_the_page_that_fixes_it(wrong, level, words, page):
    judged = verdict.judge([health.Check(code, ok, "why") for code, ok in wrong])
    assert judged.level == level and judged.sentence.startswith(words) and judged.page.startswith(page)
    assert bool(judged.page) == bool(page)


def test_times_by_kind_and_stage(board, running):
    """Nearest rank: of 20 the 10th and the 19th; what failed, or ended before yesterday, is left out."""
    for number in range(1, 21):
        lifecycle.succeed(running(), [], [("cooking", float(number)), ("storing", 0.5)])
    lifecycle.fail(running(), JobError(ErrorCode.bad_input), stages=[("cooking", 5000.0)])
    old = running()
    lifecycle.succeed(old, [], [("cooking", 9000.0)])
    JobEvent.objects.filter(job_id=old.job_id).update(at=timezone.now() - timedelta(hours=25))
    lifecycle.succeed(running(), [])
    cooking, storing = stats.stage_times()
    assert cooking == ("KITCHEN", "cooking", 20, 10.0, 19.0) and storing == ("KITCHEN", "storing", 20, 0.5, 0.5)
    assert "<td>cooking</td><td>20</td><td>10 s</td><td>19 s</td>" in board()


def test_a_stages_name_is_shown_as_text(board, running):
    lifecycle.succeed(running(), [], [(PAYLOAD, 1.0)])
    page = board()
    assert PAYLOAD not in page and "&lt;script&gt;" in page


def test_the_bar_is_red_exactly_when_health_is(board, running):
    red = not all(check.ok for check in health.report())
    assert red and 'class="verdict red"' in board()
    Slot.objects.create(host="h", boot_id="b", pid=1, process_started=1, queues=["cpu", "gpu", "remote"])
    Tick.objects.update(ran_at=timezone.now())
    assert [check for check in health.report() if not check.ok] == []
    assert 'class="verdict green"' in board()
    lease = running()
    Job.objects.filter(pk=lease.job_id).update(heartbeat_at=timezone.now() - timedelta(hours=1))
    page = board()
    bar = page.partition('class="verdict amber"')[2].partition("</section>")[0]
    assert "Stuck: 1 job." in bar and f'action="{reverse("admin:jobs_job_dry_run")}"' in bar
    lifecycle.cancel(lease.job_id, by="user:1")
    Breaker.objects.create(target="llm", opened_at=timezone.now())
    assert 'class="verdict amber"' in board()
    Alert.objects.create(code="refund_volume", detail="1001 tokens were refunded.", began_at=timezone.now())
    assert "1001 tokens were refunded." in board()
    Pause.objects.create(queue="gpu", reason="new card")
    assert ">paused</a>" in board()


def test_staff_without_the_right_to_see_jobs_get_the_plain_list(client, user):
    client.force_login(user("clerk", tokens=0, is_staff=True))
    assert 'id="board"' not in client.get(reverse("admin:index")).content.decode()


def test_a_viewer_sees_the_figures_and_no_button(client, user, running):
    ended(running, 1)
    viewer = user("viv", tokens=0, is_staff=True)
    viewer.groups.add(Group.objects.get(name="viewer"))
    client.force_login(viewer)
    page = client.get(reverse("admin:index")).content.decode()
    assert "bad_input" in page and "Retry…" not in page and 'name="action"' not in page
    assert client.post(reverse("admin:jobs_job_dry_run")).status_code == 403


def test_a_free_retry_is_one_click_and_a_paid_one_asks_first(client, op, running, monkeypatch):
    client.force_login(op)
    free, paid = running(price=0), running()
    for lease in (free, paid):
        lifecycle.fail(lease, JobError(ErrorCode.bad_input))
    chosen = {"action": "retry", "index": "0", "back": "board"}
    answer = client.post(reverse("admin:jobs_job_changelist"), chosen | {"_selected_action": [str(free.job_id)]})
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")
    assert Job.objects.get(pk=free.job_id).status == Status.QUEUED
    answer = client.post(reverse("admin:jobs_job_changelist"), chosen | {"_selected_action": [str(paid.job_id)]})
    assert "Retry 1 of 1 chosen job: 10 tokens charged" in answer.content.decode()
    assert Job.objects.get(pk=paid.job_id).status == Status.FAILED
