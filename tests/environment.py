"""The environment of every test process, set before anything of Django is imported: loaded by `-p` in pyproject.

In a conftest it would come too late for pytest-xdist's workers, which would share one home.
"""

import atexit
import os
import shutil
import tempfile

PREFIXES = (
    "JOB_",
    "JOBS_",
    "JOBSITE_",
    "SIMULATED_",
    "PRICE_",
    "RETRY_",
    "RETENTION_",
    "AWS_",
    "UPLOAD_",
    "MEDIA_",
    "INGEST_",
    "LLM_",
    "OPENROUTER_",
    "SPEECH_",
    "ALERT_",
    "EMAIL_",
    "METRICS_",
    "PING_",
    "LOG_",
    "SENTRY_",
    "OTEL_",
)
NAMES = ("DEBUG", "SITE_URL", "SECRET_KEY", "CRON_SECRET", "CELERY_BROKER_URL", "STORAGE_URL", "HOST", "PORT")

for _name in list(os.environ):  # a test's outcome must not hang on who runs it
    if _name.startswith(PREFIXES) or _name.removesuffix("_FILE") in NAMES:
        del os.environ[_name]
os.environ["JOBSITE_HOME"] = tempfile.mkdtemp(prefix="jobsite-test-")
os.environ["JOBSITE_KINDS"] = "tests.kitchen"  # the kind that misbehaves on demand
os.environ["ENV_FILE"] = os.devnull  # not the developer's .env
os.environ["CELERY_BROKER_URL"] = "memory://"  # tests with a real broker start one and say so
os.environ["DJANGO_SETTINGS_MODULE"] = "jobsite.settings"
atexit.register(shutil.rmtree, os.environ["JOBSITE_HOME"], ignore_errors=True)
