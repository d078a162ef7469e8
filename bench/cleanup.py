"""10,000 stuck jobs among 1,000,000: a whole sweep, refunds and events included, against the same change as one bare
SQL statement on rows alike."""

import logging
import time

from django.contrib.auth import get_user_model
from django.utils import timezone

from bench import Options, Row, median, turns
from bench.stage import Stage
from jobs import cleanup
from jobs.errors import ErrorCode
from tokens import ledger

OWNERS, PRICE, TIMEOUT = 100, 4, 300.0  # users, tokens, seconds
SHARE = 100  # one job in so many is stuck
HEALTHY = 1000  # running jobs that beat

COLUMNS = """id, owner_id, kind, tier, queue, priority, params, metadata, status, attempt, round, round_attempts,
    failures, max_attempts, run_limit, stall_limit, price, charge_id, run_after, started_at, deadline_at, heartbeat_at,
    finished_at, progress, stage, error_code, error_message"""
FINISHED = f"""
INSERT INTO jobs_job ({COLUMNS})
SELECT uuidv7(), (%(owners)s::int[])[1 + i %% {OWNERS}], 'NOOP', '', 'cpu', 0, '{{}}', '{{}}', 'SUCCEEDED', 1, 1, 1, 0,
    3, 60, 60, 0, NULL, NULL, now() - i * interval '1 second', now(), now(), now(), 1, 'succeeded', '', ''
FROM generate_series(1, %(count)s) AS i"""
RUNNING = f"""
WITH new AS MATERIALIZED (
    SELECT uuidv7() AS id, (%(owners)s::int[])[1 + i %% {OWNERS}] AS owner FROM generate_series(1, %(count)s) AS i
), charge AS (
    INSERT INTO tokens_transaction (account_id, kind, amount, balance_after, reference, reason)
    SELECT owner, 'CHARGE', -{PRICE}, 0, 'job:' || id || ':1', '' FROM new RETURNING id, reference
), paid AS (
    UPDATE tokens_account SET balance = balance - {PRICE} * jobs
    FROM (SELECT owner, count(*) AS jobs FROM new GROUP BY owner) AS bill WHERE user_id = owner
)
INSERT INTO jobs_job ({COLUMNS})
SELECT new.id, owner, 'NOOP', '', 'cpu', 0, '{{}}', '{{}}', 'RUNNING', 3, 1, 3, 2, 3, 3600, 60, {PRICE}, charge.id,
    NULL, now() - interval '20 minutes', now() + interval '40 minutes', now() - %(silent)s * interval '1 second', NULL,
    0.5, 'drawing', '', ''
FROM new JOIN charge ON reference = 'job:' || new.id || ':1'"""
BARE = f"""
WITH failed AS (
    UPDATE jobs_job SET status = 'FAILED', finished_at = now(), failures = failures + 1, error_code = 'worker_timeout',
        error_message = %(message)s
    WHERE status = 'RUNNING' AND heartbeat_at < now() - {TIMEOUT} * interval '1 second'
    RETURNING id, round, attempt, price, owner_id, charge_id
), event AS (
    INSERT INTO jobs_jobevent (job_id, round, attempt, status, code, message, by, tokens)
    SELECT id, round, attempt, 'FAILED', 'worker_timeout', %(message)s, 'bench', price FROM failed
), account AS (
    UPDATE tokens_account SET balance = balance + total
    FROM (SELECT owner_id, sum(price) AS total FROM failed GROUP BY owner_id) AS owed WHERE user_id = owner_id
    RETURNING user_id, balance - total AS before
)
INSERT INTO tokens_transaction (account_id, kind, amount, balance_after, reference, reason, reverses_id)
SELECT user_id, 'REFUND', price, before + sum(price) OVER (PARTITION BY user_id ORDER BY charge_id),
    'job:' || id || ':' || round, 'worker_timeout', charge_id
FROM failed JOIN account ON user_id = owner_id"""


def measure(stage: Stage, options: Options) -> list[Row]:
    """Jobs a second of both sides in turns, each on stuck jobs of its own."""
    logging.getLogger("jobs").setLevel(logging.INFO)  # the sweep's two lines a job are part of its cost
    owners, stuck = make_owners(), options.rows // SHARE
    run = stage.database.execute
    run(FINISHED, {"owners": owners, "count": options.rows - stuck})
    run(RUNNING, {"owners": owners, "count": HEALTHY, "silent": -86_400})
    run("VACUUM ANALYZE jobs_job, tokens_transaction, tokens_account")

    def fresh() -> None:
        run(RUNNING, {"owners": owners, "count": stuck, "silent": 2 * TIMEOUT})
        run("ANALYZE jobs_job, tokens_transaction")

    def sweep() -> float:
        fresh()
        began = time.perf_counter()
        report = cleanup.cleanup_stuck_jobs(by="bench", timeout=TIMEOUT)
        took = time.perf_counter() - began
        if (report.cleaned, report.tokens_refunded) != (stuck, stuck * PRICE):
            raise RuntimeError(f"the sweep settled {report.cleaned} of {stuck}: {report.errors[:1]}")
        return stuck / took

    def bare() -> float:
        fresh()
        began = time.perf_counter()
        done = run(BARE, {"message": ErrorCode.worker_timeout.row.sentence}).rowcount
        took = time.perf_counter() - began
        if done != stuck:
            raise RuntimeError(f"the statement settled {done} of {stuck}")
        return stuck / took

    fresh()
    print(f"cleanup, how stuck jobs are found: {found_by()}")
    run(BARE, {"message": ""})
    ours, theirs = turns(options.rounds, sweep, bare)
    if drift := ledger.drifted():
        raise RuntimeError(f"{len(drift)} accounts drift")
    return [Row(f"cleanup, {stuck:,} stuck of {options.rows:,}", median(ours), median(theirs), "≥ 0.2", "jobs/s")]


def make_owners() -> list[int]:
    """Users with an account each and tokens enough."""
    User = get_user_model()
    users = User.objects.bulk_create(User(username=f"stuck{number}") for number in range(OWNERS))
    for user in users:
        ledger.grant(ledger.open_account(user.pk).pk, 10**9, reason=f"bench {timezone.now()}")
    return [user.pk for user in users]


def found_by() -> str:
    """The plan's line that names the index, or how else the rows are reached."""
    plan = cleanup.find_stuck(TIMEOUT).order_by("started_at").values_list("pk", flat=True).explain()
    scans = [line.strip(" ->") for line in plan.splitlines() if "Scan" in line]
    return next((scan for scan in scans if "Index" in scan), scans[0])
