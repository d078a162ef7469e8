"""The peer's submitting process: sends one message after the other. The peer has no row before its result."""

import django

from bench import clients
from bench.peer import noop

django.setup()

from django.conf import settings  # noqa: E402

if __name__ == "__main__":
    known = settings.DATABASES["default"]
    clients.serve(
        lambda: noop.delay().id,
        "SELECT 1 FROM django_celery_results_taskresult WHERE task_id = %s AND status = 'SUCCESS'",
        {"host": known["HOST"], "user": known["USER"], "dbname": known["NAME"]},
    )
