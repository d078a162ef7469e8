"""The tables. Fields, constraints and indexes; no verbs: `jobs.lifecycle` and its neighbours write."""

from .alert import Alert
from .artifact import Artifact
from .breaker import Breaker
from .cleanup_run import CleanupRun
from .event import JobEvent
from .idempotency import IdempotencyKey
from .job import FINAL, LIVE, WAITING, Job, JobInput, Status
from .key import ApiKey, Scope
from .letter import About, Letter, Preference, Watermark
from .log_line import LogLine
from .part_upload import PartUpload
from .pause import Pause
from .policy import CancelRefund, Policy, StaleAction
from .remote import RemoteCall, RemoteState
from .sample import Sample
from .slot import Slot
from .tally import Tally
from .throttle import Throttle
from .tick import Tick
from .upload import Upload
from .webhook import Delivery, Endpoint, Muted

__all__ = [
    "FINAL",
    "LIVE",
    "WAITING",
    "About",
    "Alert",
    "ApiKey",
    "Artifact",
    "Breaker",
    "CancelRefund",
    "CleanupRun",
    "Delivery",
    "Endpoint",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "JobInput",
    "Letter",
    "LogLine",
    "Muted",
    "PartUpload",
    "Pause",
    "Policy",
    "Preference",
    "RemoteCall",
    "RemoteState",
    "Sample",
    "Scope",
    "Slot",
    "StaleAction",
    "Status",
    "Tally",
    "Throttle",
    "Tick",
    "Upload",
    "Watermark",
]
