"""All settings, from the environment; the platform's own come from own_settings.py. docs/settings.md lists every name
(a test compares them)."""

import fcntl
import hashlib
import ipaddress
import os
import re
import secrets
from pathlib import Path
from urllib.parse import unquote

from django.core.exceptions import ImproperlyConfigured

from jobsite import __version__, storage
from jobsite.environment import BASE_DIR, HOME, env, made, seconds, split, unreadable, whole
from jobsite.log_settings import LOG_DIR as LOG_DIR
from jobsite.log_settings import log_lines
from jobsite.own_settings import JOBSITE

# --- where things live ---------------------------------------------------------------------------------------------

HOST = env.str("HOST", "127.0.0.1")
PORT = whole("PORT", 8000, least=1, most=65535)
made(HOME, 0o700)

PROCESS = env.str("JOBSITE_PROCESS", "")  # web, worker, upkeep or beat: which log file; set by the supervisor
if not re.fullmatch(r"[a-z]{0,20}", PROCESS):
    raise ImproperlyConfigured("JOBSITE_PROCESS must be a short word of small letters.")
WORKER_SLOTS = whole("WORKER_SLOTS", 2, least=1)  # jobs that `manage.py up` runs at once


def runtime_folder(home: Path) -> Path:
    """A short private folder for the broker's socket, whose path must stay under 108 bytes; `home` need not."""
    tag = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path("/tmp") / f"jobsite-{os.getuid()}-{tag}"  # noqa: S108 - made 0700 and checked in broker.py


RUNTIME = runtime_folder(HOME)
BROKER_SOCKET = RUNTIME / "broker.sock"

# --- who may reach it ----------------------------------------------------------------------------------------------

_local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(HOST, HOST)  # noqa: S104 - compared, not bound
_local = f"[{_local}]" if ":" in _local else _local
SITE_URL = env.str("SITE_URL", f"http://{_local}:{PORT}").rstrip("/")
_site = split("SITE_URL", SITE_URL)
if _site.scheme not in ("http", "https") or not re.fullmatch(r"\w[\w.-]*|[0-9a-f:.]+", _site.hostname or ""):
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
TRUST_PROXY = env.bool("TRUST_PROXY", False)  # of a proxy in front: X-Forwarded-Proto, the last of X-Forwarded-For
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
    if TRUST_PROXY:
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
        return (file.read_text().strip() if file.exists() else "") or _made_key(file)
    except (OSError, UnicodeDecodeError) as wrong:
        raise ImproperlyConfigured(f"{file} cannot be made or read: {wrong}.") from wrong


def _made_key(file: Path) -> str:
    """One key for all processes that start at this moment. A disk that was full left the file empty: made now."""
    with open(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        if not (key := kept.read().strip()):
            key = secrets.token_urlsafe(48)
            kept.write(key)
            kept.flush()
            os.fsync(kept.fileno())
        return key


SECRET_KEY = _secret_key()
CRON_SECRET = env.str("CRON_SECRET", "")  # empty: the cron route refuses everyone
ADMIN_API_KEY = env.str("ADMIN_API_KEY", "")  # X-Admin-Key of the ingestion routes; empty: only keys of users do
if ADMIN_API_KEY and len(ADMIN_API_KEY) < 16 and PRODUCTION:
    raise ImproperlyConfigured("ADMIN_API_KEY must have at least 16 characters in production.")

# Browser front ends on other hosts, which come with keys, never with our cookies. None unless named.
CORS_ALLOWED_ORIGINS = [name.strip() for name in env.list("CORS_ORIGINS", default=[]) if name.strip()]
CORS_ALLOW_HEADERS = ["accept", "authorization", "content-type", "idempotency-key", "range", "x-admin-key"]
CORS_ALLOW_HEADERS += ["cache-control", "if-none-match", "last-event-id", "prefer"]
CORS_EXPOSE_HEADERS = ["Content-Range", "ETag", "Idempotent-Replayed", "Location", "Retry-After", "X-Request-Id"]
CORS_EXPOSE_HEADERS += ["Preference-Applied"]

if PRODUCTION:
    for _name in ("DEBUG", *sorted(os.environ)):
        if (_name == "DEBUG" and DEBUG) or _name.startswith(("SIMULATED_", "JOBSITE_FAULT")):
            raise ImproperlyConfigured(f"{_name} must not be set in production (SITE_URL is {SITE_URL}).")

# --- Django --------------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "django.contrib.admin.apps.SimpleAdminConfig",  # urls.py looks for the pages: only the web process needs them
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
    "django_htmx",
    "tokens",
    "jobs",
    "jobsite",
]
MIDDLEWARE = [
    "jobs.api.middleware.RequestIdMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "jobsite.csp.PolicyMiddleware",
    "jobsite.static.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "jobs.web.refusals.RefusalMiddleware",
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
                "jobs.web.context.page",
            ]
        },
    }
]
AUTHENTICATION_BACKENDS = ["jobs.throttles.ThrottledBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
LOGIN_URL = "web:sign-in"  # the admin has its own
LOGIN_REDIRECT_URL = "admin:index"  # after the admin's; SignIn names its own
LOGOUT_REDIRECT_URL = "web:sign-in"
STATIC_URL = "/static/"
STATIC_ROOT = HOME / "static"
made(STATIC_ROOT)
WHITENOISE_USE_FINDERS = True  # no collectstatic step on one box
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_ALLOW_ALL_ORIGINS = False
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024  # bytes of a JSON body; uploads are streamed to disk
FILE_UPLOAD_HANDLERS = ["jobs.api.uploads.MeasuredUpload"]  # to disk, hashed and measured on the way
FILE_UPLOAD_TEMP_DIR = HOME / "tmp"
made(FILE_UPLOAD_TEMP_DIR)

# --- mail ----------------------------------------------------------------------------------------------------------

EMAIL_TIMEOUT = 5  # seconds
MAIL = bool(_email := env.str("EMAIL_URL", ""))  # whether mail can be sent
if MAIL:
    split("EMAIL_URL", _email)
    try:
        vars().update(env.email_url_config(_email))
    except ImproperlyConfigured:
        raise ImproperlyConfigured("EMAIL_URL must look like smtp+tls://user:password@host:587.") from None
elif JOBSITE["ALERT_EMAIL"]:
    raise ImproperlyConfigured("ALERT_EMAIL needs EMAIL_URL (smtp+tls://user:password@host:587).")
elif JOBSITE["SIGN_UP"] == "open":
    raise ImproperlyConfigured("SIGN_UP=open needs EMAIL_URL: a letter proves the address of who signs up.")
SERVER_EMAIL = DEFAULT_FROM_EMAIL = env.str("EMAIL_FROM", f"jobsite@{_site.hostname}")

# --- database ------------------------------------------------------------------------------------------------------

_url = env.str("DATABASE_URL", "sqlite://:memory:")
if _url.partition(":")[0] not in ("sqlite", "postgres", "postgresql"):
    raise ImproperlyConfigured("DATABASE_URL must be sqlite:///… or postgres://….")
try:
    _database = env.db_url_config(_url)
except ValueError:
    raise unreadable("DATABASE_URL") from None
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
        # A server that vanishes says nothing, and TCP by itself asks for a quarter of an hour (seconds; milliseconds).
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "tcp_user_timeout": 20_000,
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
AWS_TOKEN = env.str("AWS_SESSION_TOKEN", "")
_aws = {
    "key_id": env.str("AWS_ACCESS_KEY_ID", ""),  # not set: boto3 looks for a role or a profile
    "secret": AWS_SECRET,
    "token": AWS_TOKEN,
}
STORAGES = {
    "default": storage.backend(STORAGE_URL, **_aws),
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}
WORK_ROOT = HOME / "work"  # one folder per running attempt

# --- Celery: facts of the broker, not taste (DESIGN: a nudge is only a hint) --------------------------------------

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", f"redis+socket://{BROKER_SOCKET}")
for _one in CELERY_BROKER_URL.split(";"):  # several are tried in turn
    if not split("CELERY_BROKER_URL", _one).scheme or "://" not in _one:
        raise ImproperlyConfigured("CELERY_BROKER_URL must look like redis://:password@host:6379/0.")
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
CELERY_WORKER_PROC_ALIVE_TIMEOUT = 60.0  # seconds; Celery's own 4 are over while a new pool child still sweeps
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
CELERY_BEAT_SCHEDULER = "jobsite.beat:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 5
CELERY_TIMEZONE = "UTC"
CELERY_DB_REUSE_MAX = 1_000_000  # keep the connection between tasks: dropping it costs 3x (DESIGN section 6)
DJANGO_CELERY_BEAT_TZ_AWARE = True

# --- pages ---------------------------------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {  # of our own pages; jobsite/csp.py says where it is looser
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", *storage.outputs_from(STORAGES["default"])],
        "media-src": ["'self'", *storage.outputs_from(STORAGES["default"])],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

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
    "DASHBOARD_CALLBACK": "jobs.admin.dashboard.context",
    "STYLES": [lambda request: f"{STATIC_URL}operator/around.css"],
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": lambda request: f"{STATIC_URL}web/icon.svg"}],
}

# --- logs ----------------------------------------------------------------------------------------------------------

LOGGING = log_lines(PROCESS, production=PRODUCTION)
