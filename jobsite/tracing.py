"""Errors to Sentry and traces to OpenTelemetry, where the operator set them up (requirements-ops.txt)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings

from . import __version__
from .logs import redact

_tracer = None


def start(process: str) -> None:
    """Once in each process, after its fork: both send from threads of their own, which no fork survives."""
    own = settings.JOBSITE
    if own["SENTRY_DSN"]:
        _start_sentry(own["SENTRY_DSN"], process)
    if own["OTEL_ENDPOINT"]:
        _start_traces(own["OTEL_ENDPOINT"], process)


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """What happens within is one span of a trace; nothing where no traces are kept."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(name, attributes=attributes):
        yield


def begin(name: str, **attributes: str | int) -> Any:
    """A span that somebody else ends, in another thread maybe: `end` takes it. None where no traces are kept."""
    return _tracer and _tracer.start_span(name, attributes=attributes)


def end(begun: Any, **attributes: str | int) -> None:
    """End what `begin` gave."""
    if begun is not None:
        begun.set_attributes(attributes)
        begun.end()


def _start_sentry(dsn: str, process: str) -> None:
    import sentry_sdk

    sentry_sdk.init(
        dsn,
        release=f"jobsite@{__version__}",
        environment="production" if settings.PRODUCTION else "development",
        send_default_pii=False,  # no addresses, cookies or user names
        include_local_variables=False,  # they may hold a secret under any name
        max_request_body_size="never",
        before_send=_without_secrets,
    )
    sentry_sdk.set_tag("process", process)


def _without_secrets(event: Any, hint: Any = None) -> Any:
    """The event with every string redacted as a log line is."""
    if isinstance(event, dict):
        return {key: _without_secrets(value) for key, value in event.items()}
    if isinstance(event, (list, tuple)):
        return [_without_secrets(value) for value in event]
    return redact(event) if isinstance(event, str) else event


def _start_traces(endpoint: str, process: str) -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    global _tracer
    names = {"service.name": f"jobsite-{process}", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create(names))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")))
    _tracer = provider.get_tracer("jobsite")
