"""The operator's policies, as the rows say: read at most every few seconds, so that a submit reads nothing."""

import time
from dataclasses import replace
from datetime import timedelta

from django.conf import settings
from django.db.models import Case, DateTimeField, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from . import policy
from .kinds.base import REGISTRY
from .models import Policy
from .policy import Rule

STALE = 5.0  # seconds that a process goes on with what it read
FIELDS = tuple(Rule.__dataclass_fields__)

_known: tuple[float, dict[tuple[str, str], Rule]] = (0.0, {})  # until (monotonic), rules by kind and tier


def rule(kind: str, tier: str = "") -> Rule:
    """What holds for one kind and tier: field by field the tier's line, else the kind's, else the settings'."""
    rules = _rules()
    return rules.get((kind, tier)) or rules.get((kind, "")) or _default()


def silent_since(timeout: float) -> Combinable:
    """For a query of jobs: the moment before which the last beat makes one stuck. `timeout` seconds ago, or so many as
    its policy says."""
    own = {key: found.timeout_seconds for key, found in _rules().items() if found.timeout_seconds}
    tiers_first = sorted(own.items(), key=lambda item: not item[0][1])
    cases = [
        When(kind=kind, **({"tier": tier} if tier else {}), then=Now() - timedelta(seconds=seconds))
        for (kind, tier), seconds in tiers_first
    ]
    usual = Now() - timedelta(seconds=timeout)
    return Case(*cases, default=usual, output_field=DateTimeField()) if cases else usual


def patience() -> float:
    """Seconds without a heartbeat after which the cleanup takes a job, where no policy says anything else."""
    own = settings.JOBSITE
    return policy.cleanup_timeout(own["CLEANUP_TIMEOUT"], own["HEARTBEAT_SECONDS"])


def run_most() -> float:
    """Seconds that a policy may let one attempt run: Celery's own limits end a worker's process not long after it."""
    return max(settings.JOBSITE["RUN_LIMIT_MAX"], *(kind.limits.run for kind in REGISTRY.values()))


def forget() -> None:
    """Read again at the next question, in this process."""
    global _known
    _known = (0.0, {})


def _rules() -> dict[tuple[str, str], Rule]:
    global _known
    until, rules = _known
    if time.monotonic() >= until:
        rules = _read()
        _known = (time.monotonic() + STALE, rules)
    return rules


def _read() -> dict[tuple[str, str], Rule]:
    """One statement; a kind's own line comes before those of its tiers, which build upon it."""
    rules: dict[tuple[str, str], Rule] = {}
    for kind, tier, *values in Policy.objects.order_by("kind", "tier").values_list("kind", "tier", *FIELDS):
        said = {name: value for name, value in zip(FIELDS, values, strict=True) if value not in (None, "")}
        rules[kind, tier] = replace(rules.get((kind, "")) or _default(), **said)
    return rules


def _default() -> Rule:
    own = settings.JOBSITE
    return Rule(stale_action=own["STALE_ACTION"], cancel_refund=own["CANCEL_REFUND"])
