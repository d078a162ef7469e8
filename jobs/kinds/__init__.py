"""The kinds that this installation offers; `JOBSITE_KINDS` (dotted modules) adds more without a fork."""

from importlib import import_module

from django.conf import settings

from .base import REGISTRY, Kind

BUILT_IN = ["jobs.kinds.analyze", "jobs.kinds.ingest", "jobs.kinds.enhance", "jobs.kinds.render", "jobs.kinds.stitch"]


def load() -> None:
    """Import every kind's module; called once, by the app's `ready`."""
    for module in BUILT_IN + settings.JOBSITE["KINDS"]:
        import_module(module)


def get(name: str) -> Kind:
    """The kind of that name; KeyError if this installation does not offer it."""
    return REGISTRY[name]


def names() -> list[str]:
    return sorted(REGISTRY)


def queues() -> list[str]:
    """The queues that jobs of the kinds wait in."""
    return sorted({kind.queue for kind in REGISTRY.values()})
