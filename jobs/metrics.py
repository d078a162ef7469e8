"""What /metrics tells Prometheus: read from the database at scrape time, so that every process's work is in it.

Names begin with `jobsite_`, units are seconds, bytes and tokens; labels are kind, queue, status and code (of a check, a
tick, a breaker), never a user or an id. docs/metrics.md lists them; tests hold it, the dashboard and the alert rules to
what is served.
"""

import platform
from collections.abc import Iterator
from importlib.metadata import version

from django.db import Error, connection
from django.db.models import Count, Exists, Min, OuterRef
from django.db.models.functions import Now
from django.utils import timezone
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from jobsite import __version__

from . import artifacts, breakers, health, kinds, slots, tally, webhooks
from .kinds.base import REGISTRY
from .models import Alert, Endpoint, Job, Muted, Pause, Status, Tick

MOST = 100_000  # live jobs that are counted by kind; `jobsite_queue_due` has no such end
LIVE = """
SELECT kind, queue, status, COUNT(*)
FROM (SELECT kind, queue, status FROM jobs_job WHERE finished_at IS NULL LIMIT %s) AS live GROUP BY 1, 2, 3"""
BREAKER = ("closed", "half-open", "open")

OF = ["kind", "queue"]
COUNTERS = {  # series of `tally` → what it is
    "transitions": ("job_transitions", "Changes of a job's status: into which, with which error code", "status code"),
    "charged": ("tokens_charged", "Tokens taken for jobs", ""),
    "refunded": ("tokens_refunded", "Tokens given back for jobs", ""),
    "refunds": ("refunds", "Jobs whose tokens, all or some, were given back", ""),
    "heartbeats_missed": ("heartbeats_missed", "Attempts ended because their worker was silent or gone", ""),
}
HISTOGRAMS = {
    "claim": ("claim_latency_seconds", "From submit, or retry by hand, to the claim; retries wait on purpose", ""),
    "run": ("run_seconds", "How long an attempt ran, by what it ended in", "status"),
}


class Collector:
    """Reads everything anew at each scrape: about twenty statements, none of which walks the table of jobs."""

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield _build()
        yield _gauge("disk_free_bytes", "Free space of the fuller of the disks", artifacts.free_bytes())
        checks = health.report()
        yield _labelled("check_ok", "Each check of /health: 1 well, 0 not", ["code"], {(c.code,): c.ok for c in checks})
        read: list[Metric] = []
        up = next(check.ok for check in checks if check.code == "database")
        if up:
            try:
                read = [*_jobs(), *_workers(), *_watchmen(), *_webhooks(), *_money(checks), *_totals()]
            except Error:
                connection.close_if_unusable_or_obsolete()
                up = False
        yield _gauge("database_up", "Whether the database answered this scrape; without it the rest is missing", up)
        yield from read


def registry() -> CollectorRegistry:
    """A registry of our own: the library's default one would count in this process alone."""
    own = CollectorRegistry(auto_describe=False)
    own.register(Collector())
    return own


# --- now: gauges -----------------------------------------------------------------------------------------------------


def _build() -> Metric:
    labels = {
        "version": __version__,
        "python": platform.python_version(),
        "django": version("django"),
        "celery": version("celery"),
        "database": connection.vendor,
    }
    return _labelled("build_info", "What runs here", list(labels), {tuple(labels.values()): 1})


def _jobs() -> Iterator[Metric]:
    with connection.cursor() as cursor:
        cursor.execute(LIVE, [MOST])
        found = cursor.fetchall()
    jobs = dict.fromkeys(((*of, status) for of in _kinds() for status in ("QUEUED", "RETRY", "RUNNING")), 0)
    jobs |= {tuple(labels): number for *labels, number in found}
    yield _labelled("jobs", f"Jobs that have not ended, counted to {MOST}", [*OF, "status"], jobs)
    waiting = Job.objects.filter(run_after__isnull=False, run_after__lte=Now()).order_by().values_list("queue")
    due, age = dict.fromkeys(_queues(), 0.0), dict.fromkeys(_queues(), 0.0)
    for queue, number, oldest, now in waiting.annotate(Count("pk"), Min("run_after"), now=Now()):
        due[queue,], age[queue,] = number, (now - oldest).total_seconds()
    yield _labelled("queue_due", "Jobs that could be claimed now", ["queue"], due)
    yield _labelled("queue_age_seconds", "How long the longest waiting of them has been due", ["queue"], age)
    paused = dict.fromkeys(_queues(), 0) | {(row.queue,): 1 for row in Pause.objects.all()}
    yield _labelled("queue_paused", "1 while the operator holds the queue", ["queue"], paused)


def _workers() -> Iterator[Metric]:
    busy = Exists(Job.objects.filter(status=Status.RUNNING, slot=OuterRef("pk")))
    number = dict.fromkeys(((*queue, status) for queue in _queues() for status in ("busy", "free")), 0)
    for queues, runs in slots.beating().values_list("queues", busy):
        for queue in queues:
            key = (queue, "busy" if runs else "free")
            number[key] = number.get(key, 0) + 1
    yield _labelled(
        "slots", "Worker processes that beat; one that serves two queues counts in both", ["queue", "status"], number
    )


def _watchmen() -> Iterator[Metric]:
    now, age, period = timezone.now(), {}, {}
    for tick in Tick.objects.all():
        age[tick.name,] = (now - (tick.ran_at or tick.since)).total_seconds()
        period[tick.name,] = tick.period
    yield _labelled("tick_age_seconds", "Since each watchman last ran, or was installed", ["code"], age)
    yield _labelled("tick_period_seconds", "How often it is to run", ["code"], period)
    states = {(target, state): float(state == now) for target, now, _ in breakers.states() for state in BREAKER}
    yield _labelled(
        "breaker_state", "1 for the state that an outside service's breaker is in", ["code", "status"], states
    )
    alerts = {(alert.code,): alert.began_at is not None for alert in Alert.objects.all()}
    yield _labelled("alert_active", "1 while the alert lasts", ["code"], alerts)


def _webhooks() -> Iterator[Metric]:
    owed = webhooks.due().aggregate(number=Count("pk"), oldest=Min("next_at"))
    lag = (timezone.now() - owed["oldest"]).total_seconds() if owed["oldest"] else 0.0
    yield _gauge("webhooks_due", "Webhook messages that are to be sent now", owed["number"])
    yield _gauge("webhook_lag_seconds", "How long the longest due of them has waited", max(0.0, lag))
    muted = {(state,): 0 for state in Muted.values}
    endpoints = Endpoint.objects.exclude(muted="").order_by().values_list("muted").annotate(Count("pk"))
    muted |= {(state,): number for state, number in endpoints}
    yield _labelled("webhooks_muted", "Endpoints that get nothing, by why", ["status"], muted)


def _money(checks: list[health.Check]) -> Iterator[Metric]:
    drift = next((check.number for check in checks if check.code == "ledger"), None)
    if drift is not None:
        yield _gauge("ledger_drifted_accounts", "Accounts whose balance is not what their ledger says", drift)


# --- since the first event: counters and histograms -------------------------------------------------------------------


def _totals() -> Iterator[Metric]:
    totals = tally.totals()
    for series, (name, words, more) in COUNTERS.items():
        counter = CounterMetricFamily(f"jobsite_{name}", words, labels=[*OF, *more.split()])
        begun = {} if more else dict.fromkeys(_kinds(), 0.0)  # a first event is seen only where a 0 was before
        for labels, value in (begun | totals.get(series, {})).items():
            counter.add_metric(labels, value)
        yield counter
    for series, (name, words, more) in HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"jobsite_{name}", words, labels=[*OF, *more.split()])
        counts: dict[tuple[str, ...], dict[str, float]] = {}
        for (*labels, bound), value in totals.get(series, {}).items():
            counts.setdefault(tuple(labels), {})[bound] = value
        sums = totals.get(f"{series}_sum", {})
        for labels, found in counts.items():
            buckets, so_far = [], 0.0
            for bound in (*map(str, tally.BUCKETS[series]), tally.INFINITE):
                so_far += found.get(bound, 0.0)
                buckets.append((bound, so_far))
            histogram.add_metric(labels, buckets, sums.get(labels, 0.0))
        yield histogram


# --- the pieces ----------------------------------------------------------------------------------------------------


def _kinds() -> list[tuple[str, str]]:
    return [(kind.name, kind.queue) for kind in REGISTRY.values()]


def _queues() -> list[tuple[str]]:
    return [(queue,) for queue in kinds.queues()]


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"jobsite_{name}", words, value=float(value))


def _labelled(name: str, words: str, labels: list[str], values: dict[tuple[str, ...], float]) -> Metric:
    gauge = GaugeMetricFamily(f"jobsite_{name}", words, labels=labels)
    for of, value in values.items():
        gauge.add_metric(of, float(value))
    return gauge
