"""What both sides' submitting processes do alike: take commands from stdin, submit, watch one result."""

import sys
import time
from collections.abc import Callable

import psycopg

POLL = 0.0005  # seconds between two looks at a result


def serve(submit: Callable[[], object], is_done: str, database: dict[str, str]) -> None:
    """Answer commands until stdin ends: `submit N` sends N jobs, `once` sends one and waits until its result is seen.

    Both answer with the seconds that it took. `is_done` is a query with the job's id as its parameter, which finds a
    row once the job has succeeded.
    """
    connection = psycopg.connect(autocommit=True, **database)
    submit_one(submit, connection, is_done)  # connects, imports and prepares what the first one needs
    print(0.0, flush=True)
    for line in sys.stdin:
        command, *count = line.split()
        began = time.perf_counter()
        if command == "submit":
            for _ in range(int(count[0])):
                submit()
        else:
            submit_one(submit, connection, is_done)
        print(time.perf_counter() - began, flush=True)


def submit_one(submit: Callable[[], object], connection: psycopg.Connection, is_done: str) -> None:
    job_id = submit()
    while connection.execute(is_done, [job_id]).fetchone() is None:
        time.sleep(POLL)
