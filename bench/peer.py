"""The peer: Celery as Django projects use it, one message a job, its result a row of django-celery-results."""

import os

from celery import Celery

os.environ["DJANGO_SETTINGS_MODULE"] = "bench.peer_settings"

app = Celery("peer")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(name="peer.noop")
def noop() -> None:
    """What our NOOP does."""
