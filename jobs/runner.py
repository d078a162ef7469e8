"""One claimed attempt: work folder, clocks, the kind's run, publish, settle."""

import logging
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from django.conf import settings
from django.db import DataError, Error, IntegrityError, connection
from kombu.exceptions import OperationalError as BrokerError
from structlog.contextvars import bound_contextvars

from jobsite import tracing
from jobsite.logs import redact

from . import artifacts, dispatch, kinds, lifecycle, procfs, slots
from .attempt import Attempt
from .engines import own_user
from .errors import ErrorCode, JobError, LeaseLost
from .faults import fault
from .heartbeat import INTERRUPT, heart
from .kinds.base import Abort
from .models import Job, Status

log = logging.getLogger(__name__)

LOOK = 5.0  # seconds at most between two looks at the rows while it listens: a ring can be lost
SETTLE_PAUSE = 0.5  # seconds between two tries to settle while the database is away


class _Doubt:
    """Whether the last claim's answer got lost, so that the database may hold a job for this slot that nobody runs."""

    claim = False


def drain(queue: str, *, seconds: float) -> int:
    """Claim and run due jobs of `queue` for about `seconds`; returns how many. A long job is the last of its drain.

    Running out of time sends one nudge on; while a longer job runs, its heartbeat wakes the next free slot.
    """
    until = time.monotonic() + seconds
    done = 0
    while not heart.stopping:
        lease = claim(queue)
        if lease is None:
            return done
        run(lease)
        done += 1
        if time.monotonic() > until:
            dispatch.nudge(queue)
            return done
    return done


def serve(queue: str, queues: list[str]) -> int:
    """Drain `queue`, then listen for LINGER_SECONDS for more work in any of `queues`. Returns how many jobs were run.

    A nudge reaches who listens in a fifth of the time that it takes through Celery. So somebody always listens: who
    ends nudges the next. Who came for a nudge that found no work leaves it to another that listens.
    """
    own, parent = settings.JOBSITE, os.getppid()
    until = time.monotonic() + own["LINGER_SECONDS"]

    def stop() -> bool:
        return heart.stopping or os.getppid() != parent  # its worker's main process is gone

    done = drain(queue, seconds=own["DRAIN_SECONDS"])
    while not stop() and (left := until - time.monotonic()) > 0:
        if not done and dispatch.others_listen(queue):
            return done
        look = LOOK * random.uniform(0.5, 1.0)  # two that began together do not miss each other each time
        try:
            found = dispatch.listen(queues, min(look, left), stop=stop)
        except (BrokerError, OSError) as error:
            log.debug("Listens no more: %s", error)
            return done
        queue = found or queue
        if found and not stop():
            done += drain(queue, seconds=own["DRAIN_SECONDS"])
    dispatch.nudge(queue)  # who rang one that stops believes, too, that it was heard
    return done


def claim(queue: str) -> lifecycle.Lease | None:
    """The best due job's lease. A claim whose answer got lost is handed back and made again, at once if possible."""
    slot_id = heart.slot.pk if heart.slot else None
    for last_try in (False, True):
        try:
            if _Doubt.claim and slot_id is not None:
                mine = Job.objects.filter(slot_id=slot_id)
                lifecycle.settle(mine, lambda job: JobError(ErrorCode.worker_shutdown), by="worker", wait=True)
                _Doubt.claim = False
            lease = lifecycle.claim(queue, slot_id)
            break
        except Error as error:
            _Doubt.claim = True
            connection.close_if_unusable_or_obsolete()
            if last_try:
                raise
            log.warning("No answer to a claim (%s)", type(error).__name__)
    if lease is not None:
        fault("claim.after")
    return lease


def run(lease: lifecycle.Lease) -> None:
    """Run one claimed attempt to its settling. Raises nothing of the job's own: every end is settled or discarded."""
    about = {"job_id": str(lease.job_id), "attempt": lease.attempt, "kind": lease.kind, "user_id": lease.owner_id}
    with bound_contextvars(**about), tracing.span("attempt", **about):
        _run(lease)


def _run(lease: lifecycle.Lease) -> None:
    log.info("Job %s attempt %s started: %s", lease.job_id, lease.attempt, lease.kind)
    workdir = work_folder(lease)
    attempt = Attempt(lease, workdir, watcher_lives=heart.lives)
    before = slots.children()
    heart.hold(attempt)
    try:
        error = _work(attempt)
        _settle(attempt, error)
    finally:
        attempt.close()
        attempt.finished.set()
        heart.let_go()
        slots.kill_children(except_for=before)
        shutil.rmtree(workdir, ignore_errors=True)


def _work(attempt: Attempt) -> JobError | LeaseLost | None:
    """Run the kind. Returns why the attempt failed, None if it did not."""
    signal.signal(INTERRUPT, lambda *_: _interrupt(attempt))
    try:
        fault("run.starting")
        attempt.check()
        attempt.interruptible = True
        try:
            kinds.get(attempt.lease.kind).run(attempt)
        finally:
            attempt.interruptible = False  # what follows, also the judging of an error below, is not the kind's code
        attempt.check()
        fault("run.done")
        return None
    except Abort:
        return attempt.abort
    except JobError as error:
        return attempt.abort or (_vanished() if attempt.lost_its_folder() else error)  # not the file's fault, then
    except MemoryError:
        return attempt.abort or JobError(ErrorCode.out_of_memory)
    except FileNotFoundError as error:
        if attempt.lost_its_folder():
            return attempt.abort or _vanished()
        return _unexpected(attempt, error)
    except OSError as error:
        log.warning("Job %s: %s", attempt.lease.job_id, error)
        return attempt.abort or JobError(ErrorCode.storage_error, artifacts.storage_words(error))
    except Error as error:  # an input's row could not be read
        connection.close_if_unusable_or_obsolete()
        return _unexpected(attempt, error)
    except Exception as error:  # noqa: BLE001 - a kind's own bug becomes its job's error: the log has the traceback
        return _unexpected(attempt, error)
    finally:
        signal.signal(INTERRUPT, signal.SIG_IGN)  # one that comes late must not end the process


def _vanished() -> JobError:
    return JobError(ErrorCode.storage_error, "The work folder vanished.")


def _unexpected(attempt: Attempt, error: Exception) -> JobError | LeaseLost:
    log.error("Job %s: unexpected %s", attempt.lease.job_id, type(error).__name__, exc_info=error)
    return attempt.abort or JobError(ErrorCode.internal_error)


def _interrupt(attempt: Attempt) -> None:
    if attempt.interruptible:
        attempt.interruptible = False
        raise Abort


def _settle(attempt: Attempt, error: JobError | LeaseLost | None) -> None:
    """Publish or fail; in doubt again until the lease's deadline. A lost lease discards what this attempt stored."""
    lease = attempt.lease
    try:
        if error is None:
            try:
                if attempt.outputs:
                    attempt.enter("storing")
                stored = artifacts.store(lease.job_id, lease.attempt, attempt.outputs, attempt.check)
                attempt.check()
                fault("publish.before_commit")
                _until_answered(
                    attempt, partial(lifecycle.succeed, lease, stored, attempt.stages()), {Status.SUCCEEDED}
                )
                log.info("Job %s succeeded in %.1f s", lease.job_id, time.monotonic() - attempt.began)
                if attempt.said.written:
                    attempt.said.write()
                return
            except Abort:
                error = attempt.abort
            except JobError as failed:
                error = failed
            except (DataError, IntegrityError) as refused:  # the database is there; it will never take these rows
                error = _unexpected(attempt, refused)
        if isinstance(error, JobError):
            verdict = error
            verdict.message = redact(verdict.message)  # an outside service may have told us our own key
            settle = partial(lifecycle.fail, lease, verdict, stages=attempt.stages())
            _until_answered(attempt, settle, {Status.RETRY, Status.FAILED})
            attempt.said.say("\n".join([*verdict.said, f"{verdict.code.name}: {verdict.message}"]))
            attempt.said.write()
            log.info("Job %s attempt %s failed: %s %s", lease.job_id, lease.attempt, error.code.name, error.message)
            if error.code is ErrorCode.timeout:
                log.warning("Job %s has timed out", lease.job_id)
                log.warning("Job %s timed out during %s.", lease.job_id, attempt.stage)
            if error.code is ErrorCode.worker_shutdown and lease.max_attempts == 1:
                log.warning("Marked job %s as failed due to shutdown", lease.job_id)
            return
    except LeaseLost:
        pass
    except Error as unanswered:
        log.error("Job %s could not be settled (%s); a watchman will", lease.job_id, type(unanswered).__name__)
        connection.close_if_unusable_or_obsolete()
        return
    artifacts.discard(lease.job_id, lease.attempt)
    log.info("Job %s attempt %s lost its lease; its output is discarded", lease.job_id, lease.attempt)
    if lifecycle.outcome(lease) is Status.CANCELED:
        log.info("Job %s was cancelled during %s.", lease.job_id, attempt.stage)


def _until_answered(attempt: Attempt, settle: Callable[[], object], done: set[Status]) -> None:
    """Settle; when the answer is lost or the database away, look how it came out and try again until the deadline.

    LeaseLost if somebody else ended the attempt; the last database Error at the deadline, or at once if it is about
    what was to be written.
    """
    doubt = False
    while True:
        try:
            if doubt and lifecycle.outcome(attempt.lease) in done:
                return
            settle()
            fault("settle.after")
            return
        except LeaseLost:
            if doubt and lifecycle.outcome(attempt.lease) in done:
                return
            raise
        except (DataError, IntegrityError):
            connection.close_if_unusable_or_obsolete()
            raise
        except Error as error:
            doubt = True
            log.warning("Job %s: no answer to its settling (%s)", attempt.lease.job_id, type(error).__name__)
            if time.monotonic() > attempt.deadline():
                raise
            connection.close_if_unusable_or_obsolete()
            time.sleep(SETTLE_PAUSE)


# --- work folders ---------------------------------------------------------------------------------------------------


def work_folder(lease: lifecycle.Lease) -> Path:
    """A private folder of this attempt. Its name says which process it belongs to."""
    return settings.WORK_ROOT / f"{_owner(os.getpid())}.{lease.job_id}.{lease.attempt}"


@cache
def _owner(pid: int) -> str:
    return f"{socket.gethostname()}.{pid}.{procfs.started(pid) or 0}"


def sweep_work_folders() -> int:
    """Delete work folders of this host whose process is gone; what its children left is killed. Returns how many."""
    own_user.sweep()
    gone = 0
    for folder in settings.WORK_ROOT.glob(f"{socket.gethostname()}.*"):
        host, *process = folder.name.rsplit(".", 4)  # another host's name may begin with ours: web and web.example
        if host == socket.gethostname() and procfs.started(int(process[0])) != int(process[1]):
            shutil.rmtree(folder, ignore_errors=True)
            gone += 1
    return gone
