"""Beat, which sends the watchmen's turns."""

import logging
from typing import Any

from django.utils import timezone
from django_celery_beat.schedulers import DatabaseScheduler

log = logging.getLogger(__name__)


class Scheduler(DatabaseScheduler):
    """django-celery-beat's, which a clock that is set back does not silence until its old time has come again."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        now = timezone.now()
        if ahead := [entry for entry in self.schedule.values() if entry.last_run_at > now]:
            log.warning("The clock was set back: %s entries count from now on", len(ahead))
            for entry in ahead:
                entry.last_run_at = entry.model.last_run_at = now
            self._heap = None  # it is in the order of the old time
        return super().tick(*args, **kwargs)
