"""Making room: old jobs, orphans, retention, and whether what is kept is what it was."""

import logging
import os
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from threading import Thread
from uuid import UUID

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.models.functions import Now

from jobs import artifacts, integrity, lifecycle, retention, tasks, webhooks
from jobs.errors import ErrorCode, Refused
from jobs.models import Artifact, Delivery, Job, JobInput, Letter, Status, Throttle, Tick, Upload

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ended(succeeded):
    """ended(days) → a SUCCEEDED job with a file of ten bytes that ended so long ago."""

    def make(days: float) -> Job:
        job = succeeded()
        Job.objects.filter(pk=job.pk).update(finished_at=Now() - timedelta(days=days))
        return job

    return make


@pytest.fixture
def run(capsys):
    def call(*arguments: str) -> str:
        call_command("cleanup_storage", *arguments)
        return capsys.readouterr().out

    return call


def stored() -> set[str]:
    root = Path(default_storage.path(""))
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_a_dry_run_shows_and_deletes_nothing(run, ended):
    old, young = ended(8), ended(6)
    shown = run("--days", "7")
    assert f"{old.pk} KITCHEN SUCCEEDED, ended" in shown
    assert str(young.pk) not in shown
    assert shown.endswith("would delete 1 jobs, 1 files, 10 bytes; --execute does it\n")
    assert len(stored()) == Job.objects.count() == 2


def test_execute_deletes_the_old_ones_with_their_files(run, ended, submit, ann):
    ended(8)
    young, live = ended(6), submit()
    assert run("--days", "7", "--execute") == "deleted 1 jobs, 1 files, 10 bytes\n"
    assert set(Job.objects.all()) == {young, live}
    assert stored() == {young.outputs.get().key}


def test_one_kind_only(run, ended):
    ended(8)
    assert "would delete 0 jobs" in run("--days", "7", "--kind", "RENDER")
    assert "would delete 1 jobs" in run("--days", "7", "--kind", "KITCHEN")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Say --days N"),
        (["--days", "-1"], "--days must be"),
        (["--days", "nan"], "--days must be"),
        (["--days", "7", "--kind", "RENDR"], "There is no kind RENDR"),
    ],
)
def test_a_wrong_argument_is_named(run, arguments, says):
    with pytest.raises(CommandError, match=says):
        run(*arguments)


def test_one_that_cannot_go_stops_no_other(run, ended, submit, capsys, monkeypatch):
    needed, broken, third = ended(10), ended(9), ended(8)
    JobInput.objects.create(job=submit(), reference=f"job:{needed.pk}", artifact=needed.outputs.get())
    real = lifecycle.delete

    def delete(job_id: UUID, **options):
        if job_id == broken.pk:
            raise OperationalError("planned")
        return real(job_id, **options)

    monkeypatch.setattr(lifecycle, "delete", delete)
    with pytest.raises(CommandError, match="2 jobs could not be deleted"):
        run("--days", "7", "--execute")
    said = capsys.readouterr()
    assert f"{needed.pk} is kept: {ErrorCode.job_in_use.row.sentence}" in said.err
    assert f"{broken.pk} is kept: OperationalError" in said.err
    assert not Job.objects.filter(pk=third.pk).exists()


def test_a_job_that_lives_again_is_kept(submit):
    job = submit()
    with pytest.raises(Refused):
        lifecycle.delete(job.pk, by="test", live=False)
    assert Job.objects.get(pk=job.pk).status == Status.QUEUED


def test_orphans_in_both_directions(run, ended, submit, ann):
    whole, lost = ended(1), ended(1)
    default_storage.delete(lost.outputs.get().key)
    orphan = default_storage.save("jobs/nobody/1/film.mp4", ContentFile(b"12345"))
    forgotten = default_storage.save("uploads/forgotten", ContentFile(b"123"))
    os.utime(default_storage.path(forgotten), (0, 0))
    Upload.objects.create(owner=ann, name="x", key="uploads/lost", bytes=1, sha256="0" * 64, content_type="image/png")
    mine = default_storage.save("videos/mine.mp4", ContentFile(b"the operator's"))
    shown = run("--orphaned")
    assert f"{orphan}: no row, 5 bytes" in shown
    assert f"{forgotten}: no row, 3 bytes" in shown
    assert f"{lost.outputs.get().key}: not stored any more; its row stays" in shown
    assert "uploads/lost: not stored any more; its row stays" in shown
    assert "would delete 2 files, 8 bytes" in shown
    assert len(stored()) == 4
    assert "deleted 2 orphaned files" in run("--orphaned", "--execute")
    assert stored() == {whole.outputs.get().key, mine}
    assert Artifact.objects.count() == 2


def test_what_is_published_while_orphans_are_looked_for_is_none(running, tmp_path, monkeypatch):
    """Its job is over between the two questions: the one what runs, the other what has a row."""
    lease = running()
    made = tmp_path / "made"
    made.write_bytes(b"paid for")
    sealed: Future = Future()
    sealed.set_result(artifacts.seal(made))
    stored_rows = artifacts.store(
        lease.job_id, lease.attempt, [artifacts.Output(made, "dish.txt", "text/plain", sealed)]
    )
    asked = []

    def publish(execute, sql, params, many, context):
        answer = execute(sql, params, many, context)
        if sql.startswith("SELECT") and not asked:
            asked.append(sql)
            lifecycle.succeed(lease, stored_rows)
        return answer

    with connection.execute_wrapper(publish):
        assert artifacts.sweep() == 0
    assert asked and stored() == {Artifact.objects.get().key}


def test_a_folder_that_goes_meanwhile_does_not_end_the_sweep(monkeypatch):
    """Its job was deleted at the same time."""
    for job in ("1", "2"):
        default_storage.save(f"jobs/nobody-{job}/1/film.mp4", ContentFile(b"12345"))
        Path(default_storage.path(f"jobs/nobody-{job}/1/below")).mkdir()
    plain = os.scandir

    def scandir(path):
        found = plain(path)
        if str(path).endswith("/1/below"):
            found.close()
            os.rmdir(path)
            return plain(path)
        return found

    orphans = artifacts.orphans()
    monkeypatch.setattr(artifacts, "orphans", lambda: orphans)
    monkeypatch.setattr(os, "scandir", scandir)
    assert artifacts.sweep() == 2
    assert list(Path(default_storage.path("jobs")).iterdir()) == []


# --- retention --------------------------------------------------------------------------------------------------------


def test_retention_keeps_everything_unless_told(ended):
    ended(10_000)
    assert tasks.apply_retention() == 0
    assert Job.objects.count() == 1


def test_retention_by_kind_wins_and_is_taken_once_a_period(ended, settings, caplog):
    caplog.set_level(logging.INFO)
    ended(8)
    settings.JOBSITE = {**settings.JOBSITE, "RETENTION_DAYS": 1, "RETENTION_DAYS_OF": {"KITCHEN": 9}}
    assert retention.apply() == 0
    settings.JOBSITE = {**settings.JOBSITE, "RETENTION_DAYS_OF": {}}
    Tick.objects.update(ran_at=None)
    assert (tasks.apply_retention(), tasks.apply_retention()) == (1, 0)
    assert stored() == set()
    assert "Retention: 1 KITCHEN jobs older than 1 days, 1 files" in caplog.messages


def test_the_same_task_sweeps_old_messages_letters_and_counters(ann):
    long_ago = timedelta(days=60)
    endpoint, _ = webhooks.create(ann.pk, url="https://hooks.example.com/")
    Delivery.objects.create(endpoint=endpoint, type="webhook.test", body="{}")
    Letter.objects.create(owner=ann, about="low_balance", source=1, subject="Low", body="Low")
    for model in (Delivery, Letter):
        model.objects.update(created_at=Now() - long_ago)
    Throttle.objects.create(key="over", free_at=0.0)
    assert tasks.apply_retention() == 3
    assert not (Delivery.objects.exists() or Letter.objects.exists() or Throttle.objects.exists())


def test_retention_stops_when_its_time_is_over(ended, monkeypatch, settings):
    ended(8)
    settings.JOBSITE = {**settings.JOBSITE, "RETENTION_DAYS": 1}
    monkeypatch.setattr(retention, "SECONDS", -1.0)
    assert retention.apply() == 0


# --- what is kept is what it was (FAULTS F30) ------------------------------------------------------------------------


def path_of(job: Job) -> Path:
    return Path(default_storage.path(job.outputs.get().key))


@pytest.mark.parametrize(
    ("hurt", "damage", "says"),
    [
        (lambda path: path.unlink(), "gone", "is not stored any more"),
        (lambda path: os.truncate(path, 4), "size", "is of another size"),
        (lambda path: path.write_bytes(b"01234x6789"), "content", "is changed"),
    ],
    ids=["deleted", "cut", "a byte flipped"],
)
def test_the_sweep_finds_what_is_not_as_it_was_and_the_download_says_so(succeeded, as_ann, caplog, hurt, damage, says):
    sound, hurt_one = succeeded(), succeeded()
    kept = path_of(hurt_one).read_bytes()
    hurt(path_of(hurt_one))
    assert tasks.sweep_storage() == 1
    row = hurt_one.outputs.get()
    assert row.damage == damage
    assert f"Output dish.txt of job {hurt_one.pk} {says}" in caplog.messages
    answer = as_ann.get(f"/api/jobs/{hurt_one.pk}/outputs/dish.txt/")
    assert (answer.status_code, answer.json()["code"]) == (410, "output_gone")
    assert sound.outputs.get().damage is None
    path_of(hurt_one).parent.mkdir(parents=True, exist_ok=True)
    path_of(hurt_one).write_bytes(kept)  # the operator brings it back from a backup
    assert integrity.check() == 0
    assert hurt_one.outputs.get().damage is None


def test_the_sample_rotates_within_its_bytes(succeeded, settings):
    settings.JOBSITE = {**settings.JOBSITE, "STORAGE_CHECK_BYTES": 25}  # two files of ten bytes
    too_large = succeeded(b"0" * 26).outputs.get()
    jobs = [succeeded() for _ in range(3)]
    integrity.check()
    first = {row.pk for row in Artifact.objects.filter(checked_at__isnull=False)}
    integrity.check()
    assert len(first) == 2
    assert Artifact.objects.filter(checked_at__isnull=False).count() == len(jobs)
    assert set(Artifact.objects.filter(checked_at=None)) == {too_large}  # and it has kept no other from its turn


def test_the_sample_is_read_beside_others_that_write(succeeded, monkeypatch):
    """SQLite refuses to write at once, whatever its timeout, while an older read is still open."""
    job = succeeded()
    first = job.outputs.get()
    more = [default_storage.save(f"jobs/{job.pk}/1/{number}", ContentFile(b"0123456789")) for number in range(120)]
    rows = [
        Artifact(job=job, attempt=1, name=Path(key).name, key=key, bytes=10, sha256=first.sha256, content_type="a/b")
        for key in more
    ]
    Artifact.objects.bulk_create(rows)
    plain = integrity._sha256

    def beat() -> None:
        Job.objects.filter(pk=job.pk).update(heartbeat_at=Now())
        connection.close()  # this thread's own

    def read(key: str) -> str:
        thread = Thread(target=beat)
        thread.start()
        thread.join()
        return plain(key)

    monkeypatch.setattr(integrity, "_sha256", read)
    assert integrity.check() == 0
    assert not Artifact.objects.filter(checked_at=None).exists()


def test_a_storage_that_fails_one_sweep_does_not_keep_the_others_from_theirs(monkeypatch, caplog):
    def down() -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("jobs.artifacts.sweep", down)
    monkeypatch.setattr(integrity, "check", lambda: 7)
    assert tasks.sweep_storage() == 7
    assert "The storage could not be swept: Input/output error" in caplog.messages


@pytest.mark.parametrize("task", [tasks.sweep_storage, tasks.apply_retention])
def test_a_database_that_fails_one_sweep_does_not_keep_the_others_from_theirs(monkeypatch, caplog, task):
    def slow() -> int:
        raise OperationalError("canceling statement due to statement timeout")

    monkeypatch.setattr("jobs.artifacts.sweep", slow)
    monkeypatch.setattr(integrity, "check", lambda: 7)
    monkeypatch.setattr(retention, "apply", slow)
    monkeypatch.setattr(webhooks, "sweep", lambda: 7)
    assert task() == 7
    assert any(line.endswith("could not be swept: OperationalError") for line in caplog.messages)
