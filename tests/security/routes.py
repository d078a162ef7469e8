"""Every address of the project, read from its URL configuration."""

import re
from collections.abc import Callable, Iterator

from django.urls import URLResolver, get_resolver

ARGUMENT = re.compile(r"<(?:\w+:)?(\w+)>|\^?\(\?P<(\w+)>[^)]*\)/?\$?")


def routes() -> dict[str, Callable]:
    """Route → view, of two that differ in the last slash alone the one that has it."""
    found = dict(_walk(get_resolver().url_patterns, ""))
    return {route: view for route, view in found.items() if f"{route}/" not in found}


def _walk(patterns, prefix: str) -> Iterator[tuple[str, Callable]]:
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, route)
        else:
            yield route, pattern.callback


def arguments(route: str) -> list[str]:
    """The names of what the route wants."""
    return [plain or pattern for plain, pattern in ARGUMENT.findall(route)]


def fill(route: str, values: dict[str, str]) -> str:
    """The route's address. KeyError for an argument that `values` does not have."""
    return "/" + ARGUMENT.sub(lambda match: values[match[1] or match[2]], route)
