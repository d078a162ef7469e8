"""Is it alive, is it ready, is it well: for load balancers, schedulers and people."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.response import Response

from jobsite import __version__

from .. import health, verdict
from .base import AnyAccept, View
from .permissions import sees_all


class CheckObject(serializers.Serializer):
    code = serializers.CharField()
    ok = serializers.BooleanField()
    detail = serializers.CharField(required=False, help_text="Only for staff and keys of scope viewer and above.")


class HealthObject(serializers.Serializer):
    status = serializers.CharField(help_text="`ok` or `red`.")
    verdict = serializers.CharField(required=False, help_text="The dashboard's sentence; told as details are.")
    version = serializers.CharField(required=False, help_text="Jobsite's version; told as details are.")
    checks = CheckObject(many=True)


class Probe(View):
    """No key is needed; without one only codes are told."""

    permission_classes = [AllowAny]
    content_negotiation_class = AnyAccept

    def answer(self, request, checks: list[health.Check], *, whole: bool = False) -> Response:
        """200 if every check is well, else 503. `whole`: the checks are all there are, so that a verdict is due."""
        well = all(check.ok for check in checks)
        told = request.user.is_authenticated and (request.user.is_staff or sees_all(request))
        body = {
            "status": "ok" if well else "red",
            "checks": [
                {"code": check.code, "ok": check.ok, **({"detail": check.detail} if told else {})} for check in checks
            ],
        }
        if told and whole:
            body["verdict"], body["version"] = verdict.now(checks).sentence, __version__
        return Response(body, status=200 if well else 503, headers={"Cache-Control": "no-store"})


class Live(Probe):
    """The process answers."""

    authentication_classes = []

    @extend_schema(operation_id="livez", responses=HealthObject)
    def get(self, request):
        """Says nothing but that this process answers."""
        return self.answer(request, [])


class Ready(Probe):
    """The process can serve."""

    @extend_schema(operation_id="readyz", responses={200: HealthObject, 503: HealthObject})
    def get(self, request):
        """Database, storage and migrations."""
        return self.answer(request, health.ready())


class Health(Probe):
    """The platform is well."""

    @extend_schema(operation_id="health", responses={200: HealthObject, 503: HealthObject})
    def get(self, request):
        """Watchmen, workers, queues, database, storage, broker, ledger, disk. Busy is never red."""
        return self.answer(request, health.report(), whole=True)
