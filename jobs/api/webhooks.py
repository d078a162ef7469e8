"""Webhooks: the caller's endpoints, their secrets, and the log of what was sent to them."""

from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from .. import webhooks
from ..errors import ErrorCode, Refused
from ..models import Delivery, Endpoint, Muted
from ..webhooks import STATES
from .base import KeysetPagination, StrictSerializer, View, refuse_unknown_query, url


class TypesField(serializers.ListField):
    """Types of messages, each once; none means all."""

    def to_internal_value(self, data):
        return sorted(set(super().to_internal_value(data)))


class WebhookFields(StrictSerializer):
    """A new webhook."""

    url = serializers.CharField(max_length=500)
    description = serializers.CharField(max_length=80, allow_blank=True, required=False)
    types = TypesField(child=serializers.ChoiceField(sorted(webhooks.TYPES.values())), required=False)


class WebhookChange(WebhookFields):
    """What is to change; `enabled` false switches it off, true on, muted or not."""

    enabled = serializers.BooleanField(required=False)

    def __init__(self, *args, **options):
        super().__init__(*args, partial=True, **options)


class Since(StrictSerializer):
    since = serializers.DateTimeField()


class WebhookObject(serializers.Serializer):
    """A webhook. `muted` says why it gets nothing, and is null while it gets its messages."""

    id = serializers.UUIDField()
    url = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    types = serializers.ListField(child=serializers.CharField())
    muted = serializers.ChoiceField(Muted.choices, allow_null=True)
    muted_at = serializers.DateTimeField(allow_null=True)
    failures = serializers.IntegerField(help_text="In a row.")
    failing_since = serializers.DateTimeField(allow_null=True)
    secret_hint = serializers.CharField(help_text="The last characters of the secret.")
    old_secret_until = serializers.DateTimeField(allow_null=True, help_text="Until then the one before signs, too.")
    created_at = serializers.DateTimeField()
    urls = serializers.DictField(child=serializers.URLField())


class WebhookWithSecret(WebhookObject):
    secret = serializers.CharField(help_text="`whsec_…`; shown this once.")


class TryObject(serializers.Serializer):
    at = serializers.DateTimeField()
    status = serializers.IntegerField(allow_null=True)
    seconds = serializers.FloatField()
    error = serializers.CharField(allow_blank=True)
    excerpt = serializers.CharField(allow_blank=True, help_text="The beginning of the answer.")


class DeliveryObject(serializers.Serializer):
    """A message: `delivered`, `owed` (a try is to come at `next_at`) or `failed` (given up, or held while muted)."""

    id = serializers.UUIDField()
    webhook_id = serializers.CharField(help_text="As the receiver reads it, the same on every try.")
    type = serializers.CharField()
    job = serializers.UUIDField(allow_null=True)
    state = serializers.ChoiceField(sorted(STATES))
    attempts = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    next_at = serializers.DateTimeField(allow_null=True)
    delivered_at = serializers.DateTimeField(allow_null=True)
    tries = TryObject(many=True)
    urls = serializers.DictField(child=serializers.URLField())


class DeliveryDetailObject(DeliveryObject):
    body = serializers.CharField(help_text="What is signed and sent, to the letter.")


class Replayed(serializers.Serializer):
    replayed = serializers.IntegerField()


def represent(request, endpoint: Endpoint) -> dict:
    """The webhook as a JSON-ready object, without its secret."""
    return {
        "id": endpoint.pk,
        "url": endpoint.url,
        "description": endpoint.description,
        "types": endpoint.types,
        "muted": endpoint.muted or None,
        "muted_at": endpoint.muted_at,
        "failures": endpoint.failures,
        "failing_since": endpoint.failing_since,
        "secret_hint": endpoint.hint,
        "old_secret_until": endpoint.old_until if endpoint.old_until and endpoint.old_until > timezone.now() else None,
        "created_at": endpoint.created_at,
        "urls": {
            "self": url(request, "webhook", endpoint.pk),
            "deliveries": url(request, "webhook-deliveries", endpoint.pk),
        },
    }


def represent_delivery(request, delivery: Delivery) -> dict:
    """The message as a JSON-ready object, without its body."""
    return {
        "id": delivery.pk,
        "webhook_id": webhooks.message_id(delivery.pk),
        "type": delivery.type,
        "job": delivery.job,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "created_at": delivery.created_at,
        "next_at": delivery.next_at,
        "delivered_at": delivery.delivered_at,
        "tries": delivery.log,
        "urls": {"self": url(request, "webhook-delivery", delivery.endpoint_id, delivery.pk)},
    }


class Webhooks(View):
    """The caller's webhooks, newest first; make one."""

    pagination_class = KeysetPagination

    @extend_schema(operation_id="webhooks_list", responses=WebhookObject(many=True))
    def get(self, request):
        """List webhooks."""
        refuse_unknown_query(request, {"limit", "cursor"})
        pages = KeysetPagination()
        rows = pages.paginate_queryset(webhooks.of(request.user), request)
        return pages.get_paginated_response([represent(request, row) for row in rows])

    @extend_schema(operation_id="webhooks_create", request=WebhookFields, responses={201: WebhookWithSecret})
    def post(self, request):
        """Be told when jobs end. The answer holds the secret that messages are signed with, this once."""
        wanted = WebhookFields(data=request.data)
        wanted.is_valid(raise_exception=True)
        endpoint, secret = webhooks.create(request.user.pk, **wanted.validated_data)
        body = represent(request, endpoint) | {"secret": secret}
        return Response(body, status=201, headers={"Location": body["urls"]["self"]})


class WebhookView(View):
    """What all views of one webhook start from: it is the caller's, or it is not there."""

    def endpoint(self, webhook_id) -> Endpoint:
        """The webhook of that id. Refused(not_found)."""
        endpoint = webhooks.of(self.request.user).filter(pk=webhook_id).first()
        if endpoint is None:
            raise Refused(ErrorCode.not_found)
        return endpoint

    def deliveries(self, webhook_id) -> QuerySet[Delivery]:
        """Its messages. Refused(not_found)."""
        return Delivery.objects.filter(endpoint=self.endpoint(webhook_id)).select_related("endpoint")

    def delivery(self, webhook_id, delivery_id) -> Delivery:
        """One of its messages. Refused(not_found)."""
        delivery = self.deliveries(webhook_id).filter(pk=delivery_id).first()
        if delivery is None:
            raise Refused(ErrorCode.not_found)
        return delivery


class WebhookDetail(WebhookView):
    """One webhook of the caller."""

    http_method_names = [*View.http_method_names, "patch"]

    @extend_schema(operation_id="webhooks_retrieve", responses=WebhookObject)
    def get(self, request, webhook_id):
        """How a webhook fares."""
        return Response(represent(request, self.endpoint(webhook_id)))

    @extend_schema(operation_id="webhooks_change", request=WebhookChange, responses=WebhookObject)
    def patch(self, request, webhook_id):
        """Change a webhook, or switch it on or off. What it missed while it was muted is sent by a replay."""
        endpoint = self.endpoint(webhook_id)
        wanted = WebhookChange(data=request.data)
        wanted.is_valid(raise_exception=True)
        return Response(represent(request, webhooks.change(endpoint, **wanted.validated_data)))

    @extend_schema(operation_id="webhooks_delete", responses={204: None})
    def delete(self, request, webhook_id):
        """Remove a webhook and its log."""
        self.endpoint(webhook_id).delete()
        return Response(status=204)


class WebhookRotate(WebhookView):
    @extend_schema(operation_id="webhooks_rotate", request=None, responses=WebhookWithSecret)
    def post(self, request, webhook_id):
        """A new secret, shown this once. For 24 hours messages are signed with the one before, too."""
        endpoint = self.endpoint(webhook_id)
        secret = webhooks.rotate(endpoint)
        return Response(represent(request, self.endpoint(webhook_id)) | {"secret": secret})


class WebhookTest(WebhookView):
    @extend_schema(operation_id="webhooks_test", request=None, responses={202: DeliveryObject})
    def post(self, request, webhook_id):
        """Send a message of type `webhook.test`, within ten seconds; 409 if the webhook is muted."""
        delivery = webhooks.send_test(self.endpoint(webhook_id))
        body = represent_delivery(request, delivery)
        return Response(body, status=202, headers={"Location": body["urls"]["self"]})


class WebhookReplay(WebhookView):
    @extend_schema(operation_id="webhooks_replay", request=Since, responses={202: Replayed})
    def post(self, request, webhook_id):
        """Send again all messages that were made since then and never delivered; 409 if the webhook is muted."""
        endpoint = self.endpoint(webhook_id)
        wanted = Since(data=request.data)
        wanted.is_valid(raise_exception=True)
        return Response({"replayed": webhooks.replay_failed(endpoint, wanted.validated_data["since"])}, status=202)


class WebhookDeliveries(WebhookView):
    """The log, newest first, of 30 days."""

    pagination_class = KeysetPagination

    @extend_schema(
        operation_id="webhooks_deliveries_list",
        responses=DeliveryObject(many=True),
        parameters=[OpenApiParameter("state", str, enum=sorted(STATES))],
    )
    def get(self, request, webhook_id):
        """List messages."""
        refuse_unknown_query(request, {"limit", "cursor", "state"})
        rows = self.deliveries(webhook_id)
        if (state := request.query_params.get("state")) is not None:
            if state not in STATES:
                raise serializers.ValidationError({"state": [f"Must be one of {', '.join(sorted(STATES))}."]})
            rows = rows.filter(STATES[state])
        pages = KeysetPagination()
        page = pages.paginate_queryset(rows.defer("body"), request)
        return pages.get_paginated_response([represent_delivery(request, row) for row in page])


class WebhookDelivery(WebhookView):
    @extend_schema(operation_id="webhooks_deliveries_retrieve", responses=DeliveryDetailObject)
    def get(self, request, webhook_id, delivery_id):
        """One message, with its tries and what is sent."""
        delivery = self.delivery(webhook_id, delivery_id)
        return Response(represent_delivery(request, delivery) | {"body": delivery.body})


class WebhookDeliveryReplay(WebhookView):
    @extend_schema(operation_id="webhooks_deliveries_replay", request=None, responses={202: DeliveryObject})
    def post(self, request, webhook_id, delivery_id):
        """Send one message again, whatever became of it; 409 if the webhook is muted."""
        delivery = webhooks.replay(self.delivery(webhook_id, delivery_id))
        return Response(represent_delivery(request, delivery), status=202)
