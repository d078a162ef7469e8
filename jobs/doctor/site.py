"""How the world reaches it, and how it reaches its operator."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage

from ..engines.outbound import is_loopback
from .examine import error, examination, note, warning


@examination("SITE_URL and proxy")
def address() -> Iterator[CheckMessage]:
    if settings.DEBUG:
        yield error("E150", "DEBUG is on: errors show code and settings to whoever meets them.", "Unset DEBUG.")
    if any("*" in host or host.startswith(".") for host in settings.ALLOWED_HOSTS) and settings.PRODUCTION:
        yield error("E151", "Any Host header is believed: links in mails can be forged.", "Name one host in SITE_URL.")
    if settings.PRODUCTION and not settings.SECURE:
        yield warning(
            "W152",
            f"SITE_URL is {settings.SITE_URL}: keys and passwords travel in clear.",
            "Put a proxy with TLS in front and set SITE_URL=https://…, TRUST_PROXY=true.",
        )
    if settings.SECURE and getattr(settings, "SECURE_SSL_REDIRECT", False) and not settings.TRUST_PROXY:
        yield error(
            "E153",
            "SSL_REDIRECT without TRUST_PROXY: behind a proxy every answer is a redirect to itself.",
            "Set TRUST_PROXY=true if a proxy ends TLS; unset SSL_REDIRECT, which is usually the proxy's work.",
        )
    if settings.SECURE and not settings.TRUST_PROXY:
        yield note(
            "I154",
            "SITE_URL is https, but what the proxy in front says (X-Forwarded-…) is not believed.",
            "If the proxy sets these headers itself, TRUST_PROXY=true: limits by address then see the real ones.",
        )
    if settings.TRUST_PROXY and not is_loopback(settings.HOST):
        yield warning(
            "W155",
            f"TRUST_PROXY believes the headers of whoever reaches HOST {settings.HOST} directly.",
            "HOST=127.0.0.1 with the proxy on this host, or let a firewall admit the proxy alone.",
        )
    if settings.PRODUCTION and not settings.SECURE and urlsplit(settings.SITE_URL).port is None:
        yield note("I156", "SITE_URL names no port: links lead to port 80.", "Add the port that people use.")


@examination("is somebody told")
def told() -> Iterator[CheckMessage]:
    own = settings.JOBSITE
    if not settings.PRODUCTION:
        return
    if not getattr(settings, "EMAIL_HOST", "") or settings.EMAIL_HOST == "localhost":
        yield warning(
            "W157", "No mail can be sent: no password resets, no alerts.", "Set EMAIL_URL (docs/settings.md)."
        )
    if not (own["ALERT_EMAIL"] or own["ALERT_WEBHOOK_URL"]):
        yield warning("W158", "Alerts go to the log alone.", "Set ALERT_EMAIL or ALERT_WEBHOOK_URL.")
    if not own["PING_URL"]:
        yield note(
            "I159",
            "Nobody outside notices if this host dies.",
            "Set PING_URL to a check of a service that expects a ping every 15 minutes (Healthchecks, say).",
        )
