"""How views describe themselves in the OpenAPI document: one shared Problem answers for every error."""

from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from .errors import MEDIA_TYPE


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
    """Adds the Problem as every operation's default answer."""

    def _get_response_bodies(self, direction="response"):
        bodies = super()._get_response_bodies(direction)
        bodies["default"] = self._get_response_for_code(Problem, "default", media_types=[MEDIA_TYPE])
        bodies["default"]["description"] = "Any error."
        return bodies
