"""All settings, from the environment. Every name is listed in docs/settings.md (a test compares them)."""

import hashlib
import ipaddress
import os
import re
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from jobsite import __version__, storage
from jobsite.environment import BASE_DIR, env, seconds, whole

# --- where things live ---------------------------------------------------------------------------------------------

HOME = Path(env.str("JOBSITE_HOME", str(BASE_DIR / "var"))).absolute()
HOST = env.str("HOST", "127.0.0.1")
PORT = whole("PORT", 8000, least=1)
if PORT > 65535:
    raise ImproperlyConfigured(f"PORT must be at most 65535; it is {PORT}.")
HOME.mkdir(mode=0o700, parents=True, exist_ok=True)

PROCESS = env.str("JOBSITE_PROCESS", "")  # web, worker, upkeep or beat: which log file; set by the supervisor
if not re.fullmatch(r"[a-z]{0,20}", PROCESS):
    raise ImproperlyConfigured("JOBSITE_PROCESS must be a short word of small letters.")
WORKER_SLOTS = whole("WORKER_SLOTS", 2, least=1)  # jobs that `manage.py up` runs at once


def runtime_folder(home: Path) -> Path:
    """A short private folder for the broker's socket, whose path must stay under 108 bytes; `home` need not."""
    tag = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    return Path("/tmp") / f"jobsite-{os.getuid()}-{tag}"  # noqa: S108 - made 0700 and checked in broker.py


RUNTIME = runtime_folder(HOME)
BROKER_SOCKET = RUNTIME / "broker.sock"

# --- who may reach it ----------------------------------------------------------------------------------------------

_local = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(HOST, HOST)  # noqa: S104 - compared, not bound
SITE_URL = env.str("SITE_URL", f"http://{_local}:{PORT}").rstrip("/")
_site = urlsplit(SITE_URL)
if _site.scheme not in ("http", "https") or not _site.hostname:
    raise ImproperlyConfigured("SITE_URL must look like https://jobs.example.com.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


PRODUCTION = not _is_loopback(_site.hostname)
DEBUG = env.bool("DEBUG", False)
ALLOWED_HOSTS = [_site.hostname, *([] if PRODUCTION else ["127.0.0.1", "localhost", "[::1]"])]
CSRF_TRUSTED_ORIGINS = [f"{_site.scheme}://{_site.netloc}"]
SECURE = _site.scheme == "https"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if SECURE:
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SECURE_SSL_REDIRECT = env.bool("SSL_REDIRECT", False)  # usually the proxy's work; then the proxy's header counts
    if env.bool("TRUST_PROXY", False):
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SILENCED_SYSTEM_CHECKS = ["security.W008"]  # asks for SSL_REDIRECT, which would go in circles behind a proxy


def _secret_key() -> str:
    """SECRET_KEY, else the one kept in JOBSITE_HOME (made at first start, readable by its owner alone)."""
    given = env.str("SECRET_KEY", "unset-generate")
    if given != "unset-generate":
        if PRODUCTION and (len(given) < 50 or len(set(given)) < 10 or given.startswith("django-insecure")):
            raise ImproperlyConfigured("SECRET_KEY is too weak for production; use at least 50 random characters.")
        return given
    file = HOME / "secret_key"
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(48))
    except FileExistsError:
        pass
    return file.read_text().strip()


SECRET_KEY = _secret_key()
CRON_SECRET = env.str("CRON_SECRET", "")  # empty: the cron route refuses everyone
ADMIN_API_KEY = env.str("ADMIN_API_KEY", "")  # X-Admin-Key of the ingestion routes; empty: only keys of users do
if ADMIN_API_KEY and len(ADMIN_API_KEY) < 16 and PRODUCTION:
    raise ImproperlyConfigured("ADMIN_API_KEY must have at least 16 characters in production.")

# Browser front ends on other hosts, which come with keys, never with our cookies. None unless named.
CORS_ALLOWED_ORIGINS = [origin for origin in env.list("CORS_ORIGINS", default=[]) if origin]
CORS_ALLOW_HEADERS = ["accept", "authorization", "content-type", "idempotency-key", "range", "x-admin-key"]
CORS_EXPOSE_HEADERS = ["Content-Range", "ETag", "Idempotent-Replayed", "Location", "Retry-After", "X-Request-Id"]

# --- the platform's own settings -----------------------------------------------------------------------------------

JOBSITE = {
    # clocks, in seconds
    "HEARTBEAT_SECONDS": seconds("JOB_HEARTBEAT_SECONDS", 2.0),  # a running job's heartbeat is written this often
    "WATCH_SECONDS": seconds("JOB_WATCH_SECONDS", 0.5),  # a run looks this often whether it was cancelled
    "HEARTBEAT_TIMEOUT": seconds("JOB_HEARTBEAT_TIMEOUT", 600.0, least=0.5),  # no beat for so long: the worker is dead
    "CLEANUP_TIMEOUT": seconds("JOB_CLEANUP_TIMEOUT", 300.0, least=0.5),  # the same for the 15-minute cleanup
    "MONITOR_SECONDS": seconds("JOB_MONITOR_SECONDS", 30.0),
    "CLEANUP_SECONDS": seconds("JOB_CLEANUP_SECONDS", 900.0),
    "DISPATCH_SECONDS": seconds("JOB_DISPATCH_SECONDS", 5.0),
    "CLEANUP_BATCH": whole("JOB_CLEANUP_BATCH", 500, least=1),  # rows per transaction
    "RUN_GRACE": seconds("JOB_RUN_GRACE", 60.0),  # beating but so long past its run limit: stuck all the same
    "ABORT_GRACE": seconds("JOB_ABORT_GRACE", 5.0),  # code that ignores its abort for so long is killed
    "DRAIN_SECONDS": seconds("JOB_DRAIN_SECONDS", 2.0),  # one nudge claims jobs for about so long
    "BACKOFF_INITIAL": seconds("JOB_BACKOFF_INITIAL", 5.0, least=0.01),  # between two attempts of a job
    "BACKOFF_FACTOR": seconds("JOB_BACKOFF_FACTOR", 2.0, least=1.0),  # a factor: each wait is so much longer
    "BACKOFF_MAX": seconds("JOB_BACKOFF_MAX", 300.0, least=0.01),
    "RETRY_INITIAL_DELAY": seconds("RETRY_INITIAL_DELAY", 0.5, least=0.01),  # between two calls of an outside service
    "RETRY_FACTOR": seconds("RETRY_FACTOR", 2.0, least=1.0),
    "RETRY_MAX_DELAY": seconds("RETRY_MAX_DELAY", 10.0, least=0.01),
    "BLOB_RETRY_ATTEMPTS": whole("BLOB_RETRY_ATTEMPTS", 3, least=1),
    "CIRCUIT_THRESHOLD": whole("LLM_CIRCUIT_THRESHOLD", 5, least=1),  # failures within the window: left alone
    "CIRCUIT_WINDOW": seconds("LLM_CIRCUIT_WINDOW", 300.0),
    "CIRCUIT_COOLDOWN": seconds("LLM_CIRCUIT_COOLDOWN", 600.0),
    "DEAF_SECONDS": seconds("JOB_DEAF_SECONDS", 60.0),  # due work, a free slot and no claim for so long: deaf
    "RUN_LIMIT_MAX": seconds("JOB_RUN_LIMIT_MAX", 7200.0, least=1.0),  # the longest run limit that a policy may give
    "STALE_ACTION": env.str("JOB_STALE_ACTION", "retry_then_fail"),  # or fail: at once
    "CANCEL_REFUND": env.str("JOB_CANCEL_REFUND", "full"),  # of a running job; or unused, none
    "COLD_START_THRESHOLD": seconds("COLD_START_THRESHOLD", 15.0),
    # caps
    "JOBS_PER_USER": whole("JOBS_PER_USER", 1000, least=1),  # active at once
    "SUBMITS_PER_SECOND": whole("SUBMITS_PER_SECOND", 50, least=1),  # per user
    "UPLOAD_MAX_BYTES": whole("UPLOAD_MAX_BYTES", 2 * 1024**3, least=1),
    "UPLOAD_UNUSED_HOURS": whole("UPLOAD_UNUSED_HOURS", 24, least=1),  # then an unused upload is swept
    "DISK_FREE_BYTES": whole("DISK_FREE_BYTES", 200 * 1024**2),  # below this, intake answers 507
    "STORAGE_CHECK_BYTES": whole("STORAGE_CHECK_BYTES", 1024**3),  # of outputs that are read again and compared, daily
    "RETENTION_DAYS": whole("RETENTION_DAYS", 0),  # an ended job and its files go after so many days; 0: never
    "RETENTION_DAYS_OF": {  # the same of one kind, which wins: RETENTION_DAYS_RENDER=30
        name.removeprefix("RETENTION_DAYS_"): whole(name, 0)
        for name in (name.removesuffix("_FILE") for name in os.environ)
        if name.startswith("RETENTION_DAYS_")
    },
    "MEDIA_MEMORY_BYTES": whole("MEDIA_MEMORY_BYTES", 2 * 1024**3, least=1),  # address space of one FFmpeg
    "MEDIA_FILE_BYTES": whole("MEDIA_FILE_BYTES", 8 * 1024**3, least=1),  # largest file that one FFmpeg may write
    # prices, whole tokens
    "PRICE_RENDER_SECOND": whole("PRICE_RENDER_SECOND", 1),
    "PRICE_STITCH_BASE": whole("PRICE_STITCH_BASE", 1),
    "PRICE_ANALYZE_MB": whole("PRICE_ANALYZE_MB", 1),  # per 10 MB begun
    "PRICE_ENHANCE_1K": whole("PRICE_ENHANCE_1K", 2),
    "PRICE_ENHANCE_2K": whole("PRICE_ENHANCE_2K", 5),
    "PRICE_ENHANCE_4K": whole("PRICE_ENHANCE_4K", 10),
    "PRICE_INGEST": whole("PRICE_INGEST", 0),
    # alerts
    "ALERT_STUCK_JOBS": whole("ALERT_STUCK_JOBS", 10),  # more than so many are told
    "ALERT_REFUND_TOKENS": whole("ALERT_REFUND_TOKENS", 1000),  # refunded within an hour; more is told
    "ALERT_WEBHOOK_URL": env.str("ALERT_WEBHOOK_URL", ""),
    "ALERT_EMAIL": env.str("ALERT_EMAIL", ""),
    # media
    "RENDER_ENGINE": env.str("RENDER_ENGINE", "preview"),  # who draws a RENDER
    "ENHANCE_ENGINE": env.str("ENHANCE_ENGINE", "auto"),  # resample, model, or model where UPSCALER_MODEL names one
    "UPSCALER_MODEL": env.str("UPSCALER_MODEL", ""),  # path of an ONNX file
    "RUNPOD_API_KEY": env.str("RUNPOD_API_KEY", ""),
    "RUNPOD_ENDPOINT_ID": env.str("RUNPOD_ENDPOINT_ID", ""),
    "RUNPOD_BASE_URL": env.str("RUNPOD_BASE_URL", "https://api.runpod.ai/v2"),  # http only to this host: the fake
    "RUNPOD_POLL_SECONDS": seconds("RUNPOD_POLL_SECONDS", 2.0),  # a job's state is asked for this often
    "RUNPOD_OUTPUT_BYTES": whole("RUNPOD_OUTPUT_BYTES", 2 * 1024**3, least=1),  # largest result that is pulled
    "RUNPOD_SWEEP_SECONDS": seconds("RUNPOD_SWEEP_SECONDS", 60.0),  # what nobody waits for is cancelled this often
    "FFMPEG": env.str("FFMPEG", "bundled"),  # a path, or the one that comes with imageio-ffmpeg
    "INGEST_ROOT": Path(env.str("INGEST_ROOT", str(HOME / "ingest"))).absolute(),  # what INGEST's `path` is relative to
    "INGEST_PREFIX": env.str("INGEST_PREFIX", ""),  # keys of the storage that INGEST may read begin with it
    "SPEECH_MODEL": env.str("SPEECH_MODEL", ""),  # folder of a faster-whisper model; empty: no transcripts
    "MEDIA_WALLS": env.str("MEDIA_WALLS", "required"),  # or best_effort
    "KINDS": [module for module in env.list("JOBSITE_KINDS", default=[]) if module],
}
JOBSITE |= {
    # ANALYZE
    "ANALYZE_SECONDS": seconds("JOB_TIMEOUT_SECONDS", 600.0, least=1.0),  # an attempt's whole time
    "SIMULATED_SLOW": seconds("SIMULATED_SLOW_PROCESSING_SECONDS", 0.0, least=0.0),  # to rehearse cancel and timeout
    "CLIENT_MAX_WAIT": seconds("CLIENT_MAX_WAIT_SECONDS", 600.0, least=1.0),  # told to the dialect's clients
    "LLM_KEY": env.str("OPENROUTER_API_KEY", ""),  # empty: no model is asked
    "LLM_MODEL": env.str("LLM_MODEL", "deepseek/deepseek-r1"),
    "LLM_BASE_URL": env.str("LLM_BASE_URL", "https://openrouter.ai/api/v1"),
    "LLM_RETRY_ATTEMPTS": whole("LLM_RETRY_ATTEMPTS", 2, least=1),
    "LLM_TIMEOUT_SECONDS": seconds("LLM_TIMEOUT_SECONDS", 60.0),  # one call, all in all
}
if JOBSITE["ALERT_WEBHOOK_URL"] and urlsplit(JOBSITE["ALERT_WEBHOOK_URL"]).scheme not in ("http", "https"):
    raise ImproperlyConfigured("ALERT_WEBHOOK_URL must look like https://hooks.example.com/jobsite.")
if urlsplit(JOBSITE["LLM_BASE_URL"]).scheme not in ("http", "https"):
    raise ImproperlyConfigured("LLM_BASE_URL must look like https://openrouter.ai/api/v1.")
if JOBSITE["STALE_ACTION"] not in ("retry_then_fail", "fail"):
    raise ImproperlyConfigured("JOB_STALE_ACTION must be retry_then_fail or fail.")
if JOBSITE["CANCEL_REFUND"] not in ("full", "unused", "none"):
    raise ImproperlyConfigured("JOB_CANCEL_REFUND must be full, unused or none.")
if JOBSITE["MEDIA_WALLS"] not in ("required", "best_effort"):
    raise ImproperlyConfigured("MEDIA_WALLS must be required or best_effort.")

if PRODUCTION:
    for _name in ("DEBUG", *sorted(os.environ)):
        if (_name == "DEBUG" and DEBUG) or _name.startswith(("SIMULATED_", "JOBSITE_FAULT")):
            raise ImproperlyConfigured(f"{_name} must not be set in production (SITE_URL is {SITE_URL}).")

# --- Django --------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "tokens",
    "jobs",
    "jobsite",
]
MIDDLEWARE = [
    "jobs.api.middleware.RequestIdMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "jobsite.static.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
APPEND_SLASH = False  # a redirect would lose a POST's body: every API path answers with and without its slash
ROOT_URLCONF = "jobsite.urls"
ASGI_APPLICATION = "jobsite.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/admin/"
STATIC_URL = "/static/"
STATIC_ROOT = HOME / "static"
STATIC_ROOT.mkdir(exist_ok=True)
WHITENOISE_USE_FINDERS = True  # no collectstatic step on one box
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_ALLOW_ALL_ORIGINS = False
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # bytes of a JSON body; uploads are streamed to disk
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.TemporaryFileUploadHandler"]
FILE_UPLOAD_TEMP_DIR = HOME / "tmp"
FILE_UPLOAD_TEMP_DIR.mkdir(exist_ok=True)

# --- mail ----------------------------------------------------------------------------------------------------------

EMAIL_TIMEOUT = 5  # seconds
if _email := env.str("EMAIL_URL", ""):
    vars().update(env.email_url_config(_email))
elif JOBSITE["ALERT_EMAIL"]:
    raise ImproperlyConfigured("ALERT_EMAIL needs EMAIL_URL (smtp+tls://user:password@host:587).")
SERVER_EMAIL = DEFAULT_FROM_EMAIL = env.str("EMAIL_FROM", f"jobsite@{_site.hostname}")

# --- database ------------------------------------------------------------------------------------------------------

_url = env.str("DATABASE_URL", "sqlite://:memory:")
if _url.partition(":")[0] not in ("sqlite", "postgres", "postgresql"):
    raise ImproperlyConfigured("DATABASE_URL must be sqlite:///… or postgres://….")
_database = env.db_url_config(_url)
if "DATABASE_URL" not in env.ENVIRON:
    _database["NAME"] = HOME / "jobsite.sqlite3"  # not by way of a URL: a folder's name may hold #, ? or %
DATABASES = {"default": _database}
_in_web = PROCESS == "web"  # many threads share a pool; workers and Beat keep one connection each
_synchronous = env.str("SQLITE_SYNCHRONOUS", "FULL").upper()  # FULL: a paid grant survives power loss
if _synchronous not in ("NORMAL", "FULL", "EXTRA"):
    raise ImproperlyConfigured("SQLITE_SYNCHRONOUS must be NORMAL, FULL or EXTRA.")
if _database["ENGINE"].endswith("sqlite3"):
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # take the write lock at BEGIN: no deadlock on upgrade
        "timeout": 5,  # seconds, SQLite's busy_timeout
        "init_command": f"PRAGMA journal_mode=WAL; PRAGMA recursive_triggers=ON; PRAGMA synchronous={_synchronous};",
    }
else:
    _database["HOST"] = unquote(_database["HOST"])  # %2Frun%2Fpostgresql: a socket's folder, as libpq spells it
    _database["CONN_MAX_AGE"] = 0 if _in_web else None
    _database["OPTIONS"] = {
        **_database.get("OPTIONS", {}),
        "server_side_binding": True,  # with prepared statements: a fifth less CPU a job, measured by bench/
        "prepare_threshold": 2,
        "options": "-c lock_timeout=5s -c statement_timeout=30s -c idle_in_transaction_session_timeout=5s",
        **({"pool": {"min_size": 0, "max_size": 20, "timeout": 5}} if _in_web else {}),
    }

# --- storage -------------------------------------------------------------------------------------------------------

STORAGE_URL = env.str("STORAGE_URL", (HOME / "storage").as_uri())
STORAGE_ROOT = storage.folder(STORAGE_URL)  # None: it is a bucket
AWS_SECRET = env.str("AWS_SECRET_ACCESS_KEY", "")
_aws = {
    "key_id": env.str("AWS_ACCESS_KEY_ID", ""),  # not set: boto3 looks for a role or a profile
    "secret": AWS_SECRET,
    "token": env.str("AWS_SESSION_TOKEN", ""),
}
STORAGES = {
    "default": storage.backend(STORAGE_URL, **_aws),
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
WORK_ROOT = HOME / "work"  # one folder per running attempt

# --- Celery: facts of the broker, not taste (DESIGN: a nudge is only a hint) --------------------------------------

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", f"redis+socket://{BROKER_SOCKET}")
EMBEDDED_BROKER = CELERY_BROKER_URL.endswith(f"://{BROKER_SOCKET}")
CELERY_TASK_IGNORE_RESULT = True  # the row is the result
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = False  # the lease, not the broker, is what survives a crash
CELERY_TASK_DEFAULT_QUEUE = "upkeep"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_DISABLE_PREFETCH = True  # a nudge waits in the broker, not in a busy worker
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = seconds("JOB_SHUTDOWN_GRACE", 10.0)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a broker that comes back finds its workers waiting
CELERY_BROKER_CONNECTION_TIMEOUT = 2
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 5,  # seconds; workers. dispatch.py sends with its own, shorter one
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 10,
}
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 5
CELERY_TIMEZONE = "UTC"
CELERY_DB_REUSE_MAX = 1_000_000  # keep the connection between tasks: dropping it costs 3x (DESIGN section 6)
DJANGO_CELERY_BEAT_TZ_AWARE = True

# --- API -----------------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "jobs.api.authentication.KeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["jobs.api.parsers.StrictJSONParser"],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "jobs.api.schema.Schema",
    "EXCEPTION_HANDLER": "jobs.api.errors.handle",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Jobsite",
    "DESCRIPTION": "Submit, watch, cancel and download long GPU and media jobs; every token is accounted for.",
    "VERSION": __version__,
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PUBLIC": True,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SCHEMA_PATH_PREFIX": "/api",
    "COMPONENT_SPLIT_REQUEST": True,
}
UNFOLD = {
    "SITE_TITLE": "Jobsite",
    "SITE_HEADER": "Jobsite",
    "SITE_SUBHEADER": "jobs, tokens, refunds",
    "SHOW_VIEW_ON_SITE": False,
}

# --- logs ----------------------------------------------------------------------------------------------------------

LOG_DIR = HOME / "log"
_log_level = env.str("LOG_LEVEL", "INFO").upper()
if _log_level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
    raise ImproperlyConfigured("LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR.")
LOG_DIR.mkdir(exist_ok=True)
_handlers = {"terminal": {"class": "logging.StreamHandler", "formatter": "line"}}
if PROCESS:
    _handlers["file"] = {
        "class": "jobsite.logs.RotatingHandler",
        "formatter": "line",
        "filename": LOG_DIR / f"{PROCESS}.log",
    }
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "jobsite.logs.LineFormatter"}},
    "filters": {"without_probes": {"()": "jobsite.logs.WithoutProbes"}},
    "handlers": _handlers,
    "root": {"handlers": list(_handlers), "level": _log_level},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "django.request": {"filters": ["without_probes"]},
        "celery.worker.strategy": {"level": "WARNING"},  # one line a nudge is noise; transitions are logged by jobs
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "uvicorn": {"handlers": [], "propagate": True},  # its own handlers would print every line a second time
        "uvicorn.access": {"handlers": [], "propagate": True, "level": "WARNING"},
        "httpx": {"level": "WARNING"},
        **{name: {"level": "WARNING"} for name in ("botocore", "boto3", "s3transfer", "urllib3")},  # signatures
    },
}
