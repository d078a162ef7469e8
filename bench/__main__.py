"""`python -m bench [NAME …] [--quick]`: measure, then print one table. Brings its own PostgreSQL, broker and home."""

import argparse
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from bench import Options, Row
from tests import postgres

NAMES = [
    "throughput",
    "latency",
    "cancel",
    "stitch",
    "analyze",
    "enhance",
    "ingest",
    "api",
    "poll",
    "sse",
    "cleanup",
    "dashboard",
]  # in this order: the last fills the database
HEAD = ["", "ours", "reference", "ratio", "target"]


def main(arguments: list[str]) -> int:
    """Run the named benches, all by default; 0 unless one could not be run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that the benches work, no more")
    parser.add_argument("--rounds", type=int, default=Options.rounds, help="of each side (default %(default)s)")
    parser.add_argument("--rows", type=int, default=None, help=f"of the cleanup's table (default {Options.rows:,})")
    parser.add_argument("--fsync", action="store_true", help="let PostgreSQL wait for the disk at each commit")
    parser.add_argument("--log-level", default="WARNING", help="of both sides' workers (default %(default)s)")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no bench is named {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    rows = chosen.rows or (20_000 if chosen.quick else Options.rows)
    options = Options(chosen.quick, 2 if chosen.quick else chosen.rounds, rows)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = Path(tempfile.mkdtemp(prefix="jobsite-bench-"))
    waits = {"fsync": "on", "synchronous_commit": "on"} if chosen.fsync else {}
    server = postgres.Server(Path(tempfile.mkdtemp(prefix="jobsite-bench-pg-")), **waits)
    try:
        server.start()
        set_environment(home, server.url(), chosen.log_level)
        table = measure(server, [name for name in NAMES if not chosen.names or name in chosen.names], options)
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
    show(table)
    return 0


def set_environment(home: Path, database_url: str, log_level: str) -> None:
    """Nothing of the caller's settings may change what is measured."""
    for name in list(os.environ):
        if name.startswith(
            (
                "JOB",
                "PRICE_",
                "RETRY_",
                "INGEST_",
                "SPEECH_",
                "MEDIA_",
                "LLM_",
                "OPENROUTER_",
                "CELERY_",
                "STORAGE_",
                "SITE_",
                "DATABASE_",
                "WORKER_",
            )
        ):
            del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "jobsite.settings",
        "ENV_FILE": os.devnull,
        "JOBSITE_HOME": str(home),
        "JOBSITE_KINDS": "bench.noop",
        "JOBSITE_PROCESS": "bench",
        "DATABASE_URL": database_url,
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "LOG_LEVEL": log_level,
    }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def measure(server: postgres.Server, names: list[str], options: Options) -> list[Row]:
    """All rows of the table, bench by bench."""
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    from bench.stage import Stage

    logging.getLogger().handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    call_command("migrate", verbosity=0)
    stage = Stage(int((server.data / "postmaster.pid").read_text().split()[0]))
    try:
        rows = []
        for name in names:
            print(f"== {name} ==", flush=True)
            rows += import_module(f"bench.{name}").measure(stage, options)
        return rows
    finally:
        stage.close()
        shutil.rmtree(settings.RUNTIME, ignore_errors=True)


def show(rows: list[Row]) -> None:
    """Print the table, columns as wide as they need to be."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    print()
    for line in lines:
        name, *numbers, target = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(name, *(number.strip().rjust(len(number)) for number in numbers), target.rstrip(), sep="  ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
