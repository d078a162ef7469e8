"""What an Idempotency-Key of a user stands for: the one thing that it made, from one body."""

from typing import TypeVar

from django.db.models import Model

from .errors import ErrorCode, Refused
from .models import IdempotencyKey

Made = TypeVar("Made", bound=Model)


def made_by(model: type[Made], owner_id: int, key: str, body_hash: str, *, gone: str) -> Made | None:
    """The row of `model` that this key made, if any.

    Refused: idempotency_key_reused if it came with another body, not_found in the words of `gone` if the row was
    deleted since.
    """
    used = IdempotencyKey.objects.filter(owner_id=owner_id, key=key).first()
    if used is None:
        return None
    if used.body_hash != body_hash:
        raise Refused(ErrorCode.idempotency_key_reused)
    made = model._default_manager.filter(pk=used.job_id).first()
    if made is None:
        raise Refused(ErrorCode.not_found, gone)
    return made
