"""A pool child that can run one job at a time."""

from django.db import models
from django.db.models.functions import Now


class Slot(models.Model):
    """One worker process. (host, boot id, pid, its start time) names a process for ever, so that a watchman on the
    same host can say that it is gone."""

    host = models.CharField(max_length=100)
    boot_id = models.CharField(max_length=40)
    pid = models.PositiveIntegerField()
    process_started = models.BigIntegerField()  # clock ticks after boot, /proc/<pid>/stat field 22
    parent_pid = models.PositiveIntegerField(default=0)  # the worker's main process
    queues = models.JSONField(default=list)
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())  # by the heartbeat thread, idle or busy
    claimed_at = models.DateTimeField(null=True)  # the last claim that it knew of when it was seen

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["host", "boot_id", "pid", "process_started"], name="slot_is_one_process")
        ]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
