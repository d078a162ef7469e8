"""The web process: `uvicorn jobsite.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "jobsite.settings")
os.environ.setdefault("JOBSITE_PROCESS", "web")  # the settings give the web process a pool of connections

_django = get_asgi_application()

from jobs.api.gate import BodyGate  # noqa: E402 - needs the apps that were loaded just now
from jobs.api.later import LaterAnswers  # noqa: E402
from jobsite import tracing  # noqa: E402

tracing.start("web")

application = LaterAnswers(BodyGate(_django))
