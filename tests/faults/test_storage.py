"""F28: the storage or the work folder takes no more: `storage_error`, tried again or refunded, nothing published."""

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files import move
from django.core.files.storage import default_storage

from jobs import artifacts, lifecycle
from jobs.attempt import Attempt
from jobs.errors import ErrorCode, JobError
from jobs.models import Artifact, JobEvent, Status
from tests import invariants
from tests.faults.rig import cook, final, fresh, until
from tokens.models import Account

MOST_BYTES = 8 * 1024**2  # more than SQLite's journal and the logs need


def failed_with_storage_error(job) -> bool:
    return JobEvent.objects.filter(job=job, status=Status.RETRY, code="storage_error").exists()


@pytest.fixture
def blocked_storage(transactional_db):
    """The storage's folder of outputs is a file: nothing can be stored in it until `unlink`."""
    folder = Path(default_storage.path("jobs"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()
    yield folder
    if folder.is_file():
        folder.unlink()


def test_a_storage_that_refuses_fails_attempts_and_refunds_at_the_last(platform, ann, blocked_storage):
    platform.up()
    once, until_it_works = cook(ann, max_attempts=1), cook(ann, max_attempts=10)
    (done,) = final(once)
    assert (done.status, done.error_code) == (Status.FAILED, "storage_error")
    assert str(settings.HOME) not in done.error_message
    until(lambda: failed_with_storage_error(until_it_works), seconds=20)
    assert not Artifact.objects.exists()
    blocked_storage.unlink()
    (done,) = final(until_it_works)
    assert (done.status, done.outputs.count()) == (Status.SUCCEEDED, 1)
    assert Account.objects.get(pk=ann.pk).balance == 1000 - done.price


def test_a_worker_that_may_write_no_more_bytes(platform, ann):
    """RLIMIT_FSIZE stands for a full disk: the kind's own write is cut in the middle."""
    platform.up()
    for pid in platform.pool():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (MOST_BYTES, resource.RLIM_INFINITY))
    large = cook(ann, bytes=2 * MOST_BYTES)
    small = cook(ann, bytes=10)
    until(lambda: failed_with_storage_error(large), seconds=30)
    assert final(small)[0].status == Status.SUCCEEDED
    (done,) = final(large)
    assert (done.status, done.error_code, done.failures) == (Status.FAILED, "storage_error", 3)
    assert Account.objects.get(pk=ann.pk).balance == 1000 - small.price


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_copy_to_another_disk_that_fills_up_on_the_way(ann, monkeypatch, tmp_path, part):
    """Also where only the last piece is cut short, which the system call tells by its count alone."""

    def other_disk(source, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    job = cook(ann)
    lease = lifecycle.claim("cpu")
    attempt = Attempt(lease, tmp_path)
    file = tmp_path / "film.mp4"
    file.write_bytes(os.urandom(100_000))
    attempt.output(file, "film.mp4")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patched:
        patched.setattr(move.os, "rename", other_disk)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(part * 100_000), before[1]))
        try:
            with pytest.raises(JobError) as refused:
                artifacts.store(lease.job_id, lease.attempt, attempt.outputs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            attempt.close()
    assert refused.value.code is ErrorCode.storage_error
    lifecycle.fail(lease, refused.value)
    assert fresh(job).status == Status.RETRY
    invariants.check()  # and nothing of it is left in the storage
