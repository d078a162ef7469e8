"""Jobsite's submitting process: sells one NOOP job after the other, each charged, in its own transaction."""

import sys

import django

django.setup()

from bench import clients, stage  # noqa: E402
from jobs import lifecycle  # noqa: E402

if __name__ == "__main__":
    owner_id = int(sys.argv[1])
    clients.serve(
        lambda: lifecycle.submit(owner_id, "NOOP", {})[0].pk,
        "SELECT 1 FROM jobs_job WHERE id = %s AND status = 'SUCCEEDED'",
        stage.database(),
    )
