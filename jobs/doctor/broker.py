"""The broker: who can put messages into it, and whether it keeps them."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from celery import current_app
from django.conf import settings
from django.core.checks import CheckMessage
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from ..engines.outbound import is_loopback
from .examine import error, examination, note, warning

TIMEOUT = 2.0  # seconds
WEAK = {"", "guest", "password", "redis", "rabbitmq", "changeme", "secret"}


@examination("who reaches the broker")
def access() -> Iterator[CheckMessage]:
    url = urlsplit(settings.CELERY_BROKER_URL)
    if url.scheme == "memory":
        yield error(
            "E101",
            "The broker is this process's memory: no worker ever sees a nudge.",
            "Unset CELERY_BROKER_URL for the embedded broker, or name a Redis or RabbitMQ.",
        )
    if "+socket" in url.scheme or url.scheme == "memory":
        return
    if (url.password or "") in WEAK and (settings.PRODUCTION or not is_loopback(url.hostname or "")):
        yield error(
            "E102",
            f"The broker at {url.hostname} is used without a password, or with a usual one: whoever reaches its port "
            "can send messages to the workers and run scripts inside it.",
            "Set a long random password (Redis: requirepass or an ACL user; RabbitMQ: another user than guest) and put "
            "it into CELERY_BROKER_URL_FILE; or unset CELERY_BROKER_URL: the embedded broker has no port at all.",
        )
    if url.scheme in ("redis", "amqp") and not is_loopback(url.hostname or ""):
        yield warning(
            "W103",
            f"What is said to the broker at {url.hostname}, its password included, crosses the network in clear.",
            "Use rediss:// or amqps://, or a private network.",
        )


@examination("does the broker keep messages", live=True)
def durability() -> Iterator[CheckMessage]:
    """Asked of the running broker itself. No job hangs on it: the row is the job, and nudges are topped up."""
    scheme = urlsplit(settings.CELERY_BROKER_URL).scheme
    if scheme == "memory":
        return
    if scheme.startswith("amqp"):
        yield note(
            "I104",
            "RabbitMQ: nudges are acknowledged before they are worked on, so its consumer_timeout ends no long job.",
            "Nothing to do. Keep queues durable (Celery's default) and watch the disk alarm: it blocks senders.",
        )
        return
    options = {**settings.CELERY_BROKER_TRANSPORT_OPTIONS, "socket_timeout": TIMEOUT, "max_retries": 0}
    try:
        with current_app.connection_for_read(connect_timeout=TIMEOUT, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, timeout=TIMEOUT)
            ask = connection.default_channel.client.config_get
            asked = {name: ask(name).get(name, "") for name in ("appendonly", "maxmemory-policy")}
    except (BrokerError, RedisError, OSError) as wrong:
        yield warning(
            "W105",
            f"The broker could not be asked whether it keeps its messages ({type(wrong).__name__}).",
            "Is it up? A hosted Redis may refuse CONFIG GET: look in its console for AOF persistence.",
        )
        return
    if asked["appendonly"] == "no":
        yield warning(
            "W106",
            "The broker forgets its messages when it restarts (appendonly is off).",
            "CONFIG SET appendonly yes, and in its configuration file. No job is lost without it: each waits until the "
            "next dispatch (JOB_DISPATCH_SECONDS) instead of being taken at once.",
        )
    if asked["maxmemory-policy"] not in ("", "noeviction"):
        yield warning(
            "W107",
            f"A full broker throws messages away (maxmemory-policy is {asked['maxmemory-policy']}).",
            "CONFIG SET maxmemory-policy noeviction.",
        )
