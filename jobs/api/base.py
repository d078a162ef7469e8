"""What the API's views share: one way to answer, one way to page, one way to say where things are."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.urls import path, reverse
from django.urls.resolvers import URLPattern
from rest_framework import exceptions, serializers
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from ..errors import ErrorCode, Refused

_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")


class View(APIView):
    """A view without OPTIONS, whose metadata would answer for things that are not the caller's."""

    http_method_names = ["get", "post", "delete", "head"]


class AnyAccept(BaseContentNegotiation):
    """Answers in its own form whatever the Accept header says: for files, and for probes."""

    def select_parser(self, request, parsers):
        return next((parser for parser in parsers), None)

    def select_renderer(self, request, renderers, format_suffix=None):
        return renderers[0], renderers[0].media_type


def both(route: str, view: type[APIView], name: str) -> list[URLPattern]:
    """The address with and without its last slash: a redirect would lose a POST's body. The schema names it once."""
    return [path(f"{route}/", view.as_view(), name=name), path(route, view.as_view(schema=None), name=f"{name}-bare")]


def url(request: Request | None, name: str, *args: Any) -> str:
    """The absolute address of a named route; in production, and where no request asks, as SITE_URL has it."""
    relative = reverse(name, args=args)
    if settings.PRODUCTION or request is None:
        return f"{settings.SITE_URL}{relative}"
    return request.build_absolute_uri(relative)


def idempotency_key(request: Request) -> str | None:
    """The request's Idempotency-Key; Refused unless it is 1 to 255 printable ASCII characters."""
    key = request.headers.get("Idempotency-Key")
    if key is None or _KEY.fullmatch(key):
        return key
    detail = "Must be 1 to 255 printable ASCII characters."
    raise Refused(ErrorCode.invalid_request, detail, fields=[("Idempotency-Key", "invalid", detail)])


@contextmanager
def in_words(**names: str) -> Iterator[None]:
    """Name the fields at fault as the caller knows them: `in_words(kind="type")`."""
    try:
        yield
    except Refused as refused:
        refused.fields = [(names.get(name, name), code, detail) for name, code, detail in refused.fields]
        raise


class StrictSerializer(serializers.Serializer):
    """Refuses what it does not know by name, and texts or booleans where a number is asked."""

    def to_internal_value(self, data):
        from ..intake import strict_errors

        wrong = strict_errors(self, data) if isinstance(data, dict) else {}
        try:
            valid = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError(error.detail | wrong) from error
        if wrong:
            raise serializers.ValidationError(wrong)
        return valid


class KeysetPagination(BasePagination):
    """Pages newest first by the primary key: stable while rows come and go, and as fast on page 1,000 as on page 1."""

    default, most = 20, 100
    cursor_schema = {"type": "string", "description": "From `next` of the page before."}

    def paginate_queryset(self, queryset: QuerySet, request: Request, view=None) -> list:
        self.request = request
        limit = self._limit(request.query_params.get("limit"))
        if cursor := request.query_params.get("cursor"):
            queryset = queryset.filter(pk__lt=self._primary_key(queryset, cursor))
        rows = list(queryset.order_by("-pk")[: limit + 1])
        self.next_cursor = str(rows[limit - 1].pk) if len(rows) > limit else None
        return rows[:limit]

    def _limit(self, given: str | None) -> int:
        if given is None:
            return self.default
        if not re.fullmatch(r"[0-9]{1,4}", given) or not 1 <= int(given) <= self.most:
            raise exceptions.ValidationError({"limit": [f"Must be a whole number from 1 to {self.most}."]})
        return int(given)

    def _primary_key(self, queryset: QuerySet, cursor: str) -> Any:
        try:
            if queryset.model._meta.pk.get_internal_type() == "UUIDField":
                return uuid.UUID(cursor)
            if re.fullmatch(r"[0-9]{1,18}", cursor):
                return int(cursor)
        except ValueError:
            pass
        raise exceptions.ValidationError({"cursor": ["Must come from the `next` of an earlier page."]})

    def next_url(self) -> str | None:
        """The address of the next page; None on the last one."""
        if self.next_cursor is None:
            return None
        query = self.request.GET.copy()
        query["cursor"] = self.next_cursor
        base = (
            f"{settings.SITE_URL}{self.request.path}" if settings.PRODUCTION else self.request.build_absolute_uri("?")
        )
        return f"{base.rstrip('?')}?{query.urlencode()}"

    def get_paginated_response(self, data: list) -> Response:
        return Response({"next": self.next_url(), "results": data})

    def get_paginated_response_schema(self, schema: dict) -> dict:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "results"],
            "properties": {"next": link, "results": schema},
        }

    def get_schema_operation_parameters(self, view) -> list[dict]:
        limit = {"type": "integer", "minimum": 1, "maximum": self.most, "default": self.default}
        return [
            {"name": "limit", "in": "query", "required": False, "schema": limit},
            {"name": "cursor", "in": "query", "required": False, "schema": self.cursor_schema},
        ]


def refuse_unknown_query(request: Request, known: set[str]) -> None:
    """ValidationError naming query parameters that nobody would read."""
    if unknown := sorted(set(request.query_params) - known):
        raise exceptions.ValidationError({name: ["There is no such parameter."] for name in unknown})
