"""The operator's first screen and the job list over 1,000,000 jobs, on SQLite (as installed) and on PostgreSQL: the
slowest of 95 in 100 requests, each asking the database anew."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from bench import Options, Row, percentile

if TYPE_CHECKING:
    from bench.stage import Stage  # needs Django, which `main` sets up itself

OWNERS = 100
WAITING, RUNNING = 20_000, 50  # of the jobs; one in 50 of the rest FAILED, one in 100 CANCELED; 100,000 end in a day
LOOKS = 40  # requests of each page
PAGES = {
    "first screen": "/admin/",
    "job list": "/admin/jobs/job/",
    "failed": "/admin/jobs/job/?status=FAILED",
    "a rare code": "/admin/jobs/job/?status=FAILED&error_code=gpu_out_of_memory",
    "a kind that has none": "/admin/jobs/job/?kind=STITCH",
    "search by user and status": "/admin/jobs/job/?q=user:bench7+status:FAILED",
    "search by metadata": "/admin/jobs/job/?q=meta.order:A17",
    "bulk, dry": "/admin/jobs/job/bulk/?verb=retry&status=FAILED",
}
LIMIT = 300  # milliseconds

COLUMNS = """id, owner_id, kind, tier, queue, priority, params, metadata, status, attempt, round, round_attempts,
    failures, max_attempts, run_limit, stall_limit, price, created_at, run_after, started_at, deadline_at, heartbeat_at,
    finished_at, progress, stage, error_code, error_message"""
FILL = f"""
INSERT INTO jobs_job ({COLUMNS})
SELECT {{id}}, (SELECT MIN(id) FROM auth_user WHERE username LIKE 'bench%%') + i %% {OWNERS}, 'NOOP', '', 'cpu', 0,
    '{{{{}}}}', {{metadata}}, status, 1, 1, 1, CASE status WHEN 'FAILED' THEN 3 ELSE 0 END, 3, 60, 60, 0,
    {{ago:i + 30}}, CASE status WHEN 'QUEUED' THEN {{ago:i + 20}} END,
    CASE WHEN status <> 'QUEUED' THEN {{ago:i + 10}} END, CASE WHEN status <> 'QUEUED' THEN {{ago:i - 60}} END,
    CASE WHEN status <> 'QUEUED' THEN {{ago:i}} END,
    CASE WHEN status NOT IN ('QUEUED', 'RUNNING') THEN {{ago:i}} END, 0, '',
    CASE WHEN status <> 'FAILED' THEN '' WHEN i %% 100000 = 50 THEN 'gpu_out_of_memory' ELSE 'bad_input' END, ''
FROM (SELECT i, CASE WHEN i < {RUNNING} THEN 'RUNNING' WHEN i < {WAITING} THEN 'QUEUED' WHEN i %% 50 = 0 THEN 'FAILED'
             WHEN i %% 100 = 1 THEN 'CANCELED' ELSE 'SUCCEEDED' END AS status
      FROM {{series}}) AS made"""

TELL = """
INSERT INTO jobs_jobevent (job_id, round, attempt, status, code, message, by, tokens, at, stages)
SELECT id, 1, 1, status, '', '', 'worker', 0, finished_at, '[["claimed", 0.1], ["drawing", 2.5], ["storing", 0.2]]'
FROM jobs_job WHERE status = 'SUCCEEDED'"""


class _Ago:
    """`{ago:i}`: the moment of job i's end, 0.864 s before the one after it."""

    def __init__(self, template: str):
        self.template = template

    def __format__(self, number: str) -> str:
        return self.template.format(f"({number})")


WORDS = {
    "sqlite": {
        "id": "printf('%%012x', CAST((julianday('now') - 2440587.5) * 86400000 - i * 864 AS INTEGER))"
        " || lower(hex(randomblob(10)))",
        "metadata": "json_object('order', 'A' || i)",
        "ago": _Ago("strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', (-{} * 0.864) || ' seconds')"),
        "series": "(WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i < {rows} - 1)"
        " SELECT i FROM numbers) AS numbers",
    },
    "postgresql": {
        "id": "uuidv7(-i * interval '0.864 seconds')",
        "metadata": "json_build_object('order', 'A' || i)",
        "ago": _Ago("now() - {} * interval '0.864 seconds'"),
        "series": "generate_series(0, {rows} - 1) AS i",
    },
}


def measure(stage: "Stage", options: Options) -> list[Row]:
    """SQLite in a process of its own; then PostgreSQL here."""
    home = tempfile.mkdtemp(prefix="jobsite-bench-sqlite-")
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    try:
        told = subprocess.run(
            [sys.executable, "-m", "bench.dashboard", str(options.rows), str(LOOKS if not options.quick else 5)],
            env=environment | {"JOBSITE_HOME": home},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    finally:
        shutil.rmtree(home)
    lines = [line.partition("\t") for line in told.splitlines() if "\t" in line]
    of_sqlite = {name: float(value) for name, _, value in lines}
    of_postgres = look(options.rows, LOOKS if not options.quick else 5)
    return [
        Row(
            f"{name}, {options.rows:,} jobs, SQLite (PostgreSQL)",
            of_sqlite[name],
            of_postgres[name],
            f"< {LIMIT} ms",
            "ms",
        )
        for name in PAGES
    ]


def look(rows: int, looks: int) -> dict[str, float]:
    """Page → milliseconds that 95 in 100 requests for it do not exceed."""
    from django.contrib.auth import get_user_model
    from django.db import connection
    from django.test import Client

    from jobs.admin.dashboard import figures

    users = get_user_model().objects
    operator = users.create_superuser("dashboard", password="x")
    users.bulk_create(users.model(username=f"bench{number}") for number in range(OWNERS))
    words = WORDS[connection.vendor]
    with connection.cursor() as cursor:
        postgres = connection.vendor == "postgresql"
        cursor.execute("SET statement_timeout = 0" if postgres else "SELECT 1")
        cursor.execute(FILL.format(**{**words, "series": words["series"].format(rows=rows)}), [])
        cursor.execute(TELL)
        cursor.execute("ANALYZE jobs_job, jobs_jobevent" if postgres else "SELECT 1")
        cursor.execute("RESET statement_timeout" if postgres else "SELECT 1")
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(operator)
    found = {}
    for name, address in PAGES.items():
        taken, busy = [], []
        for _ in range(looks + 1):
            figures.forget()
            began, worked = time.perf_counter(), time.process_time()
            answer = client.get(address)
            taken.append(1000 * (time.perf_counter() - began))
            busy.append(1000 * (time.process_time() - worked))
            if answer.status_code != 200:
                raise RuntimeError(f"{address} answered {answer.status_code}")
        found[name] = percentile(taken[1:], 95)  # the first one loads the templates
        print(f"{connection.vendor}, {name}: {percentile(busy[1:], 95):.0f} ms of CPU here, p95", file=sys.stderr)
    return found


def main() -> None:
    """On the database that the environment names: made, filled, measured, told on standard output."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    for name, milliseconds in look(int(sys.argv[1]), int(sys.argv[2])).items():
        print(f"{name}\t{milliseconds:.1f}")


if __name__ == "__main__":
    main()
