"""The platform's own settings, from the environment: `settings.JOBSITE`."""

import importlib.util
import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from jobsite.environment import HOME, env, networks, seconds, split, whole

DAYS_MOST = 36_500  # a hundred years: further back no database counts

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
    "LINGER_SECONDS": seconds("JOB_LINGER_SECONDS", 60.0, least=0.0),  # a slot listens for jobs past Celery
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
    "EVENT_STREAMS_PER_USER": whole("EVENT_STREAMS_PER_USER", 100, least=1),  # at once, in one web process
    "UPLOAD_MAX_BYTES": whole("UPLOAD_MAX_BYTES", 2 * 1024**3, least=1),
    "UPLOADS_UNUSED_BYTES": whole("UPLOADS_UNUSED_BYTES", 20 * 1024**3, least=1),  # of one user
    # then an unused upload is swept
    "UPLOAD_UNUSED_HOURS": whole("UPLOAD_UNUSED_HOURS", 24, least=1, most=24 * DAYS_MOST),
    "DISK_FREE_BYTES": whole("DISK_FREE_BYTES", 200 * 1024**2),  # below this, intake answers 507
    "STORAGE_CHECK_BYTES": whole("STORAGE_CHECK_BYTES", 1024**3),  # of outputs that are read again and compared, daily
    # an ended job and its files go after so many days; 0: never
    "RETENTION_DAYS": whole("RETENTION_DAYS", 0, most=DAYS_MOST),
    "RETENTION_DAYS_OF": {  # the same of one kind, which wins: RETENTION_DAYS_RENDER=30
        name.removeprefix("RETENTION_DAYS_"): whole(name, 0, most=DAYS_MOST)
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
    # users
    "SIGN_UP": env.str("SIGN_UP", "off"),  # or open: whoever can prove an e-mail address makes an account
    "SIGN_UP_TOKENS": whole("SIGN_UP_TOKENS", 0, most=1_000_000),  # that such an account is given, once for an address
    # alerts
    "ALERT_STUCK_JOBS": whole("ALERT_STUCK_JOBS", 10),  # more than so many are told
    "ALERT_REFUND_TOKENS": whole("ALERT_REFUND_TOKENS", 1000),  # refunded within an hour; more is told
    "ALERT_WEBHOOK_URL": env.str("ALERT_WEBHOOK_URL", ""),
    "ALERT_EMAIL": env.str("ALERT_EMAIL", ""),
    "PING_URL": env.str("PING_URL", ""),  # is told after each good cleanup that we live
    "SENTRY_DSN": env.str("SENTRY_DSN", ""),
    "OTEL_ENDPOINT": env.str("OTEL_EXPORTER_OTLP_ENDPOINT", ""),  # OTLP over HTTP
    "METRICS_TOKEN": env.str("METRICS_TOKEN", ""),  # what /metrics wants as its bearer token; empty: only this host
    # webhooks
    "WEBHOOKS_PER_USER": whole("WEBHOOKS_PER_USER", 10),
    "WEBHOOK_NETWORKS": networks("WEBHOOK_NETWORKS"),  # private ones that webhooks may lead to all the same
    # media
    "RENDER_ENGINE": env.str("RENDER_ENGINE", "preview"),  # who draws a RENDER
    "ENHANCE_ENGINE": env.str("ENHANCE_ENGINE", "auto"),  # resample, model, or model where UPSCALER_MODEL names one
    "UPSCALER_MODEL": env.str("UPSCALER_MODEL", ""),  # path of an ONNX file
    "RUNPOD_API_KEY": env.str("RUNPOD_API_KEY", ""),
    "RUNPOD_ENDPOINT_ID": env.str("RUNPOD_ENDPOINT_ID", ""),
    "RUNPOD_BASE_URL": env.str("RUNPOD_BASE_URL", "https://api.runpod.ai/v2"),  # http only to this host: the fake
    "RUNPOD_POLL_SECONDS": seconds("RUNPOD_POLL_SECONDS", 2.0),  # a job's state is asked for this often
    "RUNPOD_WEBHOOK": env.bool("RUNPOD_WEBHOOK", False),  # RunPod can reach SITE_URL, and is to say when a job is over
    "RUNPOD_OUTPUT_BYTES": whole("RUNPOD_OUTPUT_BYTES", 2 * 1024**3, least=1),  # largest result that is pulled
    "RUNPOD_SWEEP_SECONDS": seconds("RUNPOD_SWEEP_SECONDS", 60.0),  # what nobody waits for is cancelled this often
    "FFMPEG": env.str("FFMPEG", "bundled"),  # a path, or the one that comes with imageio-ffmpeg
    "INGEST_ROOT": Path(env.str("INGEST_ROOT", str(HOME / "ingest"))).absolute(),  # what INGEST's `path` is relative to
    "INGEST_PREFIX": env.str("INGEST_PREFIX", ""),  # keys of the storage that INGEST may read begin with it
    "SPEECH_MODEL": env.str("SPEECH_MODEL", ""),  # folder of a faster-whisper model; empty: no transcripts
    "MEDIA_WALLS": env.str("MEDIA_WALLS", "required"),  # or best_effort
    "KINDS": [name.strip() for name in env.list("JOBSITE_KINDS", default=[]) if name.strip()],
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
if "" in JOBSITE["RETENTION_DAYS_OF"]:  # it would be every kind
    raise ImproperlyConfigured("RETENTION_DAYS_ must name a kind: RETENTION_DAYS_RENDER.")
_hook = JOBSITE["ALERT_WEBHOOK_URL"]
if _hook and split("ALERT_WEBHOOK_URL", _hook).scheme not in ("http", "https"):
    raise ImproperlyConfigured("ALERT_WEBHOOK_URL must look like https://hooks.example.com/jobsite.")
if JOBSITE["PING_URL"] and split("PING_URL", JOBSITE["PING_URL"]).scheme not in ("http", "https"):
    raise ImproperlyConfigured("PING_URL must look like https://hc-ping.com/….")
for _name, _package in (("SENTRY_DSN", "sentry_sdk"), ("OTEL_ENDPOINT", "opentelemetry")):
    if JOBSITE[_name] and importlib.util.find_spec(_package) is None:
        raise ImproperlyConfigured(
            f"{_name} needs packages that are not installed: pip install -r requirements-ops.txt."
        )
if split("LLM_BASE_URL", JOBSITE["LLM_BASE_URL"]).scheme not in ("http", "https"):
    raise ImproperlyConfigured("LLM_BASE_URL must look like https://openrouter.ai/api/v1.")
if JOBSITE["STALE_ACTION"] not in ("retry_then_fail", "fail"):
    raise ImproperlyConfigured("JOB_STALE_ACTION must be retry_then_fail or fail.")
if JOBSITE["CANCEL_REFUND"] not in ("full", "unused", "none"):
    raise ImproperlyConfigured("JOB_CANCEL_REFUND must be full, unused or none.")
if JOBSITE["SIGN_UP"] not in ("off", "open"):
    raise ImproperlyConfigured("SIGN_UP must be off or open.")
if JOBSITE["MEDIA_WALLS"] not in ("required", "best_effort"):
    raise ImproperlyConfigured("MEDIA_WALLS must be required or best_effort.")
