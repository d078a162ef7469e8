"""The dead man's switch: whoever waits for our ping notices when this host, Beat or the database is gone."""

import asyncio
import logging

from django.conf import settings

from .engines import outbound

log = logging.getLogger(__name__)

DEADLINE = 5.0  # seconds


def alive() -> bool:
    """POST nothing to PING_URL, wherever the operator has it. Returns whether it was taken; a failure is logged."""
    url = settings.JOBSITE["PING_URL"]
    if not url:
        return False
    try:
        answer = asyncio.run(outbound.post(url, b"", {}, seconds=DEADLINE, most=1024, trusted=outbound.ANYWHERE))
    except (OSError, outbound.Refused, outbound.Failed) as error:
        log.warning("PING_URL could not be reached: %s", type(error).__name__)
        return False
    if taken := 200 <= answer.status < 300:
        log.info("Pinged")
    else:
        log.warning("PING_URL answered %s", answer.status)
    return taken
