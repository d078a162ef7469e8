"""A nudge's short way, past Celery: a pool child that has run dry listens for a ring. For Redis and Valkey alone; with
another broker nobody hears. A ring carries nothing but its queue, as a nudge does: losing one changes no outcome."""

import os
import time
from collections.abc import Callable, Collection
from typing import Any

from celery import current_app
from django.conf import settings
from kombu import Connection
from kombu.exceptions import OperationalError as BrokerError

SOCKET_TIMEOUT = 0.5  # seconds; nobody waits for the broker
GAP = 0.05  # seconds between two nudges of one process: one nudge drains many jobs
SLICE = 0.2  # seconds between two looks whether to stop listening
LOOK_BY = 2.0  # seconds between two looks at the rows while something rings all the time
PATIENCE = 2.0  # seconds for the broker to confirm that it will ring


class Bells:
    """A connection to the broker that gives up after half a second, and the bells there."""

    def __init__(self) -> None:
        """BrokerError or OSError if the broker does not answer."""
        options = {**settings.CELERY_BROKER_TRANSPORT_OPTIONS}
        options |= {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": SOCKET_TIMEOUT, "max_retries": 0}
        self.broker: Connection = current_app.connection_for_write(transport_options=options)
        self.cut, self.refused = self.broker.connection_errors, self.broker.channel_errors  # classes of exceptions
        self.client: Any = None  # a redis.Redis; None: a broker without bells
        if self.broker.transport.driver_type == "redis":
            channel = self.broker.default_channel
            self.client, self._prefix = channel.client, channel.keyprefix_fanout

    def name(self, queue: str) -> str:
        """The channel of a queue: Redis has them once for all its databases, which kombu tells apart by this prefix."""
        return f"{self._prefix}jobsite.{queue}"

    def ring(self, queue: str) -> bool:
        """Wake all who listen for `queue`; False if nobody does. BrokerError if the broker does not answer."""
        return self._ask(lambda: self.client.publish(self.name(queue), "")) > 0

    def waiting(self, queue: str) -> int:
        """How many nudges of `queue` lie in the broker; 0 where it has no bells. BrokerError if it does not answer."""
        return self._ask(lambda: self.client.llen(queue))

    def listeners(self, queue: str) -> int:
        """How many listen for `queue`. BrokerError if the broker does not answer."""
        return self._ask(lambda: self.client.pubsub_numsub(self.name(queue))[0][1])

    def _ask(self, ask: Callable[[], int]) -> int:
        try:
            return 0 if self.client is None else ask()
        except self.refused:  # its rules let us send messages, but not ask this
            return 0
        except self.cut as error:
            raise BrokerError(str(error)) from error


class Ears:
    """What one process listens with. Its connection is kept from one time to the next, a fork's child has its own."""

    def __init__(self) -> None:
        self._pid = 0
        self._look_by = 0.0  # monotonic
        self._bells: Bells
        self._rings: Any  # a redis.client.PubSub

    def listen(
        self, queues: Collection[str], seconds: float, *, look: Callable[[], str | None], stop: Callable[[], bool]
    ) -> str | None:
        """The first of `queues` that rings or that `look` knows; None if there is none within `seconds`, or none yet
        when it is to `stop`.

        Who rings believes that we heard: so `look` is asked while we listen, and once more when we do not. Not at once,
        lest jobs that come one by one are looked for one by one; but every two seconds, whatever rings: one queue
        that always does must not keep work of another waiting.
        BrokerError if the broker does not answer or has no bells.
        """
        until = time.monotonic() + seconds
        self._connect()
        try:
            names = self._subscribe(queues)
            now = time.monotonic()
            found = self._hear(names, now + GAP, stop) if now < self._look_by else None
            if found is None:
                found, self._look_by = look(), now + LOOK_BY
            found = found or self._hear(names, until, stop)
            self._rings.unsubscribe()
        except BaseException as error:
            self._pid = 0  # it may be subscribed still: who rings would believe that we hear
            self._bells.broker.release()
            if isinstance(error, self._bells.cut + self._bells.refused):
                raise BrokerError(str(error)) from error
            raise
        return found or look()

    def others_hear(self, queue: str) -> bool:
        """Whether somebody listens for `queue`; errors as of `listen`."""
        self._connect()
        return self._bells.listeners(queue) > 0

    def _connect(self) -> None:
        if self._pid == os.getpid():
            return
        self._bells = Bells()
        if self._bells.client is None:
            raise BrokerError("This broker has no bells.")
        self._rings, self._pid = self._bells.client.pubsub(), os.getpid()

    def _subscribe(self, queues: Collection[str]) -> dict[str | None, str]:
        """Have the bells of `queues` heard from now on. Returns the queue of each."""
        names: dict[str | None, str] = {self._bells.name(queue): queue for queue in queues}
        self._rings.subscribe(*names)
        for _ in names:
            if self._next("subscribe", PATIENCE) is None:
                raise BrokerError("no answer to SUBSCRIBE")
        return names

    def _hear(self, names: dict[str | None, str], until: float, stop: Callable[[], bool]) -> str | None:
        found = None
        while found is None and not stop() and (left := until - time.monotonic()) > 0:
            found = names.get(self._next("message", min(SLICE, left)))
        return found

    def _next(self, kind: str, seconds: float) -> str | None:
        """The bell of the next message of this kind within `seconds`; what comes before is of an earlier time."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            message = self._rings.get_message(timeout=left)
            if message is not None and message["type"] == kind:
                return message["channel"].decode()
        return None
