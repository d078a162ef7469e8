"""The Celery app: `celery -A jobsite worker -Q cpu`."""

import os

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jobsite.settings")
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")  # Django's checks import every page; a worker would start half as fast

app = Celery("jobsite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def _leave_logging_to_django(**_) -> None:
    """Celery configures logging only if nobody listens here; the LOGGING setting has done it."""
