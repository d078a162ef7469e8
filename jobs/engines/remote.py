"""What an engine that has its work done by an outside service is given: the request's own row, written before it."""

from typing import Protocol


class RemoteCall(Protocol):
    """One request to an outside service. Its row exists before it is sent, so that a lost answer or a dead worker
    leaves something to look for. Every call of these is one short write of its own."""

    id: str  # goes with the request, so that the service's own lists can be searched for it
    job_id: str
    attempt: int
    remote_id: str  # the service's name for it; empty until it is known
    webhook: str  # the address that the service is to call once it is over; empty: none
    resumed: bool  # an earlier attempt of the same job made it, and nobody knows how it ended: look, do not send

    def started(self, remote_id: str) -> None:
        """The service took it and calls it so."""

    def woken(self) -> bool:
        """Whether the service's webhook has come since this was asked last."""

    def ended(self, outcome: str) -> None:
        """It is over (or was never begun); `outcome` is one word for the operator."""

    def give_up(self) -> bool:
        """Nobody waits for it any more: note that it is to be cancelled. False if a later attempt has taken it over."""
