"""Reading a table on from a mark, so that what happened is turned into messages and whoever wrote it pays nothing."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from django.db.models.functions import Now

Row = TypeVar("Row", bound=Model)

# Ids may become visible out of order on PostgreSQL: the last rows are read again for longer than a transaction takes.
OVERLAP = timedelta(seconds=60)


def read_on(
    rows: QuerySet[Row], at: str, mark: int, make: Callable[[list[Row]], int], *, batch: int, until: float
) -> tuple[int, int]:
    """Give `make` the rows whose ids are over `mark`, `batch` at a time, until a monotonic time is over.

    `at` is the column that says when a row was written. Returns how many messages `make` says it made, and how far the
    mark may be moved: what is younger than OVERLAP comes again, so `make` must know what it made already.
    """
    old: QuerySet[Any] = rows.model._default_manager.filter(**{f"{at}__lt": Now() - OVERLAP})
    safe, made = old.order_by("-pk").values_list("pk", flat=True).first() or 0, 0
    while found := list(rows.filter(pk__gt=mark).order_by("pk")[:batch]):
        made += make(found)
        mark = found[-1].pk
        if time.monotonic() > until:
            return made, min(safe, mark)
    return made, safe
