"""A CSV of 1 GB analysed: an ANALYZE from submit to success, against DuckDB's own SUMMARIZE of the same file."""

import subprocess
import sys
import time
from pathlib import Path

import duckdb
import psutil
from django.conf import settings

from bench import Options, Row, median, turns
from bench.stage import Stage
from bench.stitch import STATUS, upload
from jobs import lifecycle

ROW_BYTES = 103  # about
LOOK = 0.25  # seconds between two looks at the job and at its child: looking costs, too


def measure(stage: Stage, options: Options) -> list[Row]:
    """Medians of both sides in turns, and the most memory that a child had; the file is uploaded before the clock
    starts."""
    stage.worker()
    folder = settings.HOME / "tables"
    folder.mkdir()
    file = make_table(folder / "sales.csv", 100_000_000 if options.quick else 1_000_000_000)
    params = {"file": f"upload:{upload(stage, file)}", "header": "auto"}
    memory: list[int] = []

    def ours() -> float:
        began = time.perf_counter()
        job, _ = lifecycle.submit(stage.owner.pk, "ANALYZE", params)
        while (status := stage.database.execute(STATUS, [job.pk]).fetchone()[0]) in ("QUEUED", "RUNNING"):
            memory.append(children_bytes())
            time.sleep(LOOK)
        if status != "SUCCEEDED":
            raise RuntimeError(f"the analysis ended {status}")
        return time.perf_counter() - began

    def reference() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", SUMMARIZE, str(file)], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    ours(), reference()  # files and programs are in memory from here on, for both
    mine, bare = turns(options.rounds, ours, reference)
    size = f"{file.stat().st_size / 1e6:,.0f} MB"
    return [
        Row(f"analyze {size} of CSV", median(mine), median(bare), "≤ 2", "s"),
        Row(f"analyze {size}: memory of a child", max(memory) / 2**20, None, "≤ 1,024 MiB", "MiB"),
    ]


SUMMARIZE = """
import duckdb, sys
connection = duckdb.connect()
connection.execute("SET threads = 2")
connection.execute("SUMMARIZE SELECT * FROM read_csv(?)", [sys.argv[1]]).fetchall()
"""


def make_table(path: Path, size: int) -> Path:
    """Sales with a time, categories, prices that rise, gaps, and a text that is never the same."""
    rows = size // ROW_BYTES
    duckdb.connect().execute(f"""
        COPY (
            SELECT n AS id, (TIMESTAMP '2020-01-01' + to_seconds(n * 10))::TIMESTAMP AS sold_at,
                ['north', 'south', 'east', 'west'][1 + (hash(n) % 4)::INT] AS region,
                'product ' || (hash(n * 3) % 500) AS product,
                round(10 + 90 * (hash(n * 7) % 10000) / 10000.0 + n / 1e6, 2) AS price,
                (hash(n * 11) % 20)::INT AS quantity,
                round((hash(n * 13) % 100000) / 1000.0, 3) AS discount,
                CASE WHEN hash(n * 17) % 20 = 0 THEN NULL ELSE round((hash(n * 19) % 1000000) / 77.0, 4) END AS cost,
                md5(n::VARCHAR) AS token
            FROM range({rows}) AS numbers(n)
        ) TO '{path}' (HEADER)
    """)
    return path


def children_bytes() -> int:
    """Resident memory of the child that works on the table, 0 while there is none."""
    most = 0
    for process in psutil.process_iter(["cmdline"]):
        if {"jobs.engines.tables", "jobs.engines.analysis"} & {*(process.info["cmdline"] or ())}:
            try:
                most = max(most, process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
    return most
