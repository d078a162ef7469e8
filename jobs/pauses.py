"""Holding a queue and letting it go on. The claim itself asks the rows, so a pause holds from its commit on."""

import logging

from . import dispatch
from .models import Pause

log = logging.getLogger(__name__)


def pause(queue: str, *, reason: str, by: str) -> Pause:
    """No job of `queue` is claimed from now on. A second pause changes the reason."""
    row, _ = Pause.objects.update_or_create(queue=queue, defaults={"reason": reason[:200], "by": by[:80]})
    log.warning("Queue %s paused by %s: %s", queue, by, reason)
    return row


def resume(queue: str, *, by: str) -> bool:
    """Let the queue go on at once. False if it was not paused."""
    gone, _ = Pause.objects.filter(queue=queue).delete()
    if gone:
        log.warning("Queue %s resumed by %s", queue, by)
        dispatch.nudge(queue)
    return bool(gone)
