"""The peer's Django settings: nothing but django-celery-results, with its database connection kept between tasks."""

from jobsite import settings as ours

SECRET_KEY = "bench"
INSTALLED_APPS = ["django_celery_results"]
DATABASES = ours.DATABASES  # PostgreSQL, CONN_MAX_AGE None
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
CELERY_BROKER_URL = f"{ours.CELERY_BROKER_URL}?virtual_host=1"
CELERY_RESULT_BACKEND = "django-db"
CELERY_DB_REUSE_MAX = ours.CELERY_DB_REUSE_MAX  # without it, three times slower
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
