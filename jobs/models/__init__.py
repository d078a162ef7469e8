"""The tables. Fields, constraints and indexes; no verbs: `jobs.lifecycle` and its neighbours write."""

from .alert import Alert
from .artifact import Artifact
from .breaker import Breaker
from .cleanup_run import CleanupRun
from .event import JobEvent
from .idempotency import IdempotencyKey
from .job import FINAL, LIVE, WAITING, Job, JobInput, Status
from .key import ApiKey, Scope
from .part_upload import PartUpload
from .policy import CancelRefund, Policy, StaleAction
from .remote import RemoteCall, RemoteState
from .slot import Slot
from .tick import Tick
from .upload import Upload

__all__ = [
    "FINAL",
    "LIVE",
    "WAITING",
    "Alert",
    "ApiKey",
    "Artifact",
    "Breaker",
    "CancelRefund",
    "CleanupRun",
    "IdempotencyKey",
    "Job",
    "JobEvent",
    "JobInput",
    "PartUpload",
    "Policy",
    "RemoteCall",
    "RemoteState",
    "Scope",
    "Slot",
    "StaleAction",
    "Status",
    "Tick",
    "Upload",
]
