"""What would hurt later: looked for by `manage.py doctor`, `check --deploy` and, once, by `manage.py up`.

Each examination yields Django check messages with a hint that says what to do; docs/operations.md lists them by id.
"""

from . import broker, database, host, media, site
from .examine import EXAMINATIONS, register

__all__ = ["EXAMINATIONS", "broker", "database", "host", "media", "register", "site"]
