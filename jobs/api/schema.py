"""How views describe themselves in the OpenAPI document: one shared Problem answers for every error."""

from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers
from rest_framework.fields import empty

from .. import kinds
from .errors import MEDIA_TYPE

TAKES_A_KIND = {"jobs_submit", "jobs_estimate"}


class FieldError(serializers.Serializer):
    field = serializers.CharField()
    code = serializers.CharField()
    detail = serializers.CharField()


class Problem(serializers.Serializer):
    """RFC 9457, with what a program needs beside it. `code` is stable; texts are not."""

    type = serializers.URLField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    code = serializers.CharField()
    errors = FieldError(many=True)
    request_id = serializers.CharField()
    retryable = serializers.BooleanField()
    docs = serializers.URLField()


class Schema(AutoSchema):
    """Adds the Problem as every operation's default answer, and this installation's kinds where one is named."""

    def get_description(self):
        told = super().get_description()
        if self.get_operation_id() not in TAKES_A_KIND:
            return told
        return "\n\n".join([told, "The kinds here and their `params`:", *map(_kind, kinds.names())])

    def _get_response_bodies(self, direction="response"):
        bodies = super()._get_response_bodies(direction)
        bodies["default"] = self._get_response_for_code(Problem, "default", media_types=[MEDIA_TYPE])
        bodies["default"]["description"] = "Any error."
        return bodies


def _kind(name: str) -> str:
    """A kind in words, as Markdown."""
    kind = kinds.get(name)
    params = "\n".join(f"- `{param}`: {_param(field)}" for param, field in kind.Params().fields.items())
    return f"**{name}** {kind.about()}\n\n{params}"


def _param(field: serializers.Field) -> str:
    words = ["needed"] if field.required else [] if field.default is empty else [f"default `{field.default}`"]
    if choices := getattr(field, "choices", None):
        words.append(", ".join(f"`{choice}`" for choice in choices))
    bounds = (("at least", "min_value"), ("at most", "max_value"))
    words += [f"{word} {getattr(field, name)}" for word, name in bounds if getattr(field, name, None) is not None]
    return "; ".join([*words, str(field.help_text)] if field.help_text else words) or "optional"
