"""Any interleaving of the lifecycle's verbs keeps the invariants: a state machine that Hypothesis drives."""

import uuid

import pytest
from django.contrib.auth import get_user_model
from django.db.models import F
from django.db.models.functions import Now
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase as HypothesisTestCase
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

from jobs import cleanup, lifecycle
from jobs.errors import ErrorCode, JobError, LeaseLost, Refused
from jobs.models import LIVE, Artifact, Job, Status
from tests import invariants
from tests.jobs.conftest import PARAMS
from tokens import ledger

CODES = [ErrorCode.internal_error, ErrorCode.ffmpeg_error, ErrorCode.worker_timeout, ErrorCode.worker_shutdown]


class Lifecycle(RuleBasedStateMachine):
    """Jobs by id and leases by value: old leases stay in play, as zombies do."""

    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self):
        super().__init__()
        self.owner = get_user_model().objects.create(username=uuid.uuid4().hex)
        ledger.open_account(self.owner.pk)
        ledger.grant(self.owner.pk, 40, reason="for the test")

    @rule(target=jobs, price=st.integers(0, 15), tries=st.integers(1, 3), deadline=st.sampled_from([None, 600]))
    def submit(self, price, tries, deadline):
        params = PARAMS | {"price": price}
        try:
            return lifecycle.submit(self.owner.pk, "KITCHEN", params, max_attempts=tries, deadline_seconds=deadline)[
                0
            ].pk
        except Refused:
            return uuid.uuid4()  # nobody's: every verb must answer not_found

    @rule(target=leases)
    def claim(self):
        return lifecycle.claim("cpu")

    @rule()
    def time_passes(self):
        Job.objects.filter(status=Status.RETRY).update(run_after=Now())

    @rule(lease=leases, fraction=st.floats(0, 1))
    def beat(self, lease, fraction):
        self.as_run(lease, lambda: lifecycle.beat(lease, progress=fraction, stage="mixing"))

    @rule(lease=leases)
    def succeed(self, lease):
        if lease:
            key = f"jobs/{lease.job_id}/{lease.attempt}/x"
            row = Artifact(job_id=lease.job_id, attempt=lease.attempt, name="x", key=key, bytes=0, sha256="")
            self.as_run(lease, lambda: lifecycle.succeed(lease, [row]))

    @rule(lease=leases, code=st.sampled_from(CODES))
    def fail(self, lease, code):
        self.as_run(lease, lambda: lifecycle.fail(lease, JobError(code)))

    @rule(job=jobs)
    def cancel(self, job):
        self.as_user(lambda: lifecycle.cancel(job, by="test"))

    @rule(job=jobs)
    def retry(self, job):
        self.as_user(lambda: lifecycle.retry(job, by="test"))

    @rule(job=consumes(jobs))
    def delete(self, job):
        self.as_user(lambda: lifecycle.delete(job, by="test"))

    @rule(dry=st.booleans())
    def clean_up_after_silence(self, dry):
        running = Job.objects.filter(status=Status.RUNNING)
        running.update(heartbeat_at=F("created_at") - cleanup.timedelta(hours=1))
        cleanup.cleanup_stuck_jobs(by="test", dry_run=dry)
        if not dry:
            assert not running.exists()

    @rule()
    def deadlines_pass(self):
        Job.objects.filter(cancel_at__isnull=False).update(cancel_at=Now())
        cleanup.cancel_late()
        assert not Job.objects.filter(cancel_at__isnull=False, status__in=LIVE).exists()

    @rule()
    def monitor(self):
        cleanup.monitor_heartbeats()

    def as_run(self, lease, write):
        """A run's write happens only while its attempt is the one that runs."""
        if lease is None:
            return
        held = lifecycle.holds(lease)
        try:
            write()
            assert held
        except LeaseLost:
            assert not held

    def as_user(self, act):
        try:
            act()
        except Refused as refused:
            assert refused.code.row.http in (402, 404, 409)

    @invariant()
    def everything_adds_up(self):
        invariants.check(files=False)


class AnyInterleaving(HypothesisTestCase):
    @pytest.mark.timeout(240)
    def test_keeps_the_invariants(self):
        quick = settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        )
        run_state_machine_as_test(Machine, settings=quick)


class Machine(Lifecycle):
    """One example in one transaction, rolled back at its end."""

    def __init__(self):
        from django.db import transaction

        self._block = transaction.atomic()
        self._block.__enter__()
        super().__init__()

    def teardown(self):
        from django.db import transaction

        transaction.set_rollback(True)
        self._block.__exit__(None, None, None)
