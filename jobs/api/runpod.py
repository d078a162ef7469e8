"""RunPod's webhook: a nudge for the slot that waits for the request."""

from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from .. import remote
from ..errors import ErrorCode, Refused
from .base import AnyAccept, View


class RunpodWebhook(View):
    """Whoever knows a request's secret address may say that it is over; RunPod is asked whether that is so."""

    authentication_classes = []
    permission_classes = []
    content_negotiation_class = AnyAccept

    @extend_schema(exclude=True)
    def post(self, request, call_id, secret):
        """The body is not read. 200 also for what is over: RunPod repeats what is answered otherwise."""
        if not remote.wake(call_id, secret):
            raise Refused(ErrorCode.not_found)
        return Response({})
