"""The operator's pages. They show rows and act through lifecycle, cleanup and keys; nothing is edited by hand."""

from . import beat, cleanup, jobs, keys, pauses, people, policies, remote, uploads, webhooks, workers

__all__ = [
    "beat",
    "cleanup",
    "jobs",
    "keys",
    "pauses",
    "people",
    "policies",
    "remote",
    "uploads",
    "webhooks",
    "workers",
]
