"""Work that may wait for strangers' hosts: in a thread of the upkeep worker, so that no watchman waits with it."""

import logging
import threading
from collections.abc import Callable

from django.db import Error, connection

log = logging.getLogger(__name__)


class Errand:
    """`work`, done in a thread of this process, at most once at a time. A database that is away ends it: the next tick
    starts another, and what was under way is due again after its lease."""

    def __init__(self, name: str, work: Callable[[], object]):
        self.name, self._work = name, work
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; nothing if it is under way in this process."""
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            self.thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except Error as error:
            log.warning("%s wait for the database: %s", self.name.capitalize(), type(error).__name__)
        finally:
            connection.close()
