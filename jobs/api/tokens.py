"""What an account holds and how it came there; booking tokens that somebody bought or was given."""

from collections.abc import Callable
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from tokens import desk, ledger
from tokens.models import MOST, REFERENCE_LENGTH, Account, Transaction

from .. import queries
from ..errors import ErrorCode, Refused
from ..models import ApiKey
from ..transactions import write
from .base import KeysetPagination, StrictSerializer, View, idempotency_key, refuse_unknown_query
from .permissions import IsFinance

IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key", str, OpenApiParameter.HEADER, description="The same key and body book once, however often sent."
)


class TransactionObject(serializers.ModelSerializer):
    """A line of the ledger: `amount` is signed whole tokens."""

    class Meta:
        model = Transaction
        fields = ["id", "kind", "amount", "balance_after", "reference", "reason", "created_at"]


class Wallet(serializers.Serializer):
    balance = serializers.IntegerField()
    next = serializers.URLField(allow_null=True)
    results = TransactionObject(many=True)


class Tokens(View):
    """The caller's account."""

    @extend_schema(
        operation_id="tokens_retrieve",
        responses=Wallet,
        parameters=[OpenApiParameter("limit", int), OpenApiParameter("cursor", str)],
    )
    def get(self, request):
        """The balance, and the ledger's lines, newest first."""
        refuse_unknown_query(request, {"limit", "cursor"})
        pages = KeysetPagination()
        rows = pages.paginate_queryset(Transaction.objects.filter(account_id=request.user.pk), request)
        return Response(
            {
                "balance": queries.balance(request.user.pk),
                "next": pages.next_url(),
                "results": TransactionObject(rows, many=True).data,
            }
        )


@extend_schema_field({"oneOf": [{"type": "integer"}, {"type": "string"}]})
class UserField(serializers.Field):
    """A user by id or by name."""

    default_error_messages = {"invalid": "Must be the id or the name of a user.", "unknown": "There is no such user."}

    def to_internal_value(self, data):
        users = get_user_model().objects
        if isinstance(data, str) and 0 < len(data) <= 150:
            user = users.filter(username=data).first()
        elif type(data) is int:
            user = users.filter(pk=data).first()
        else:
            self.fail("invalid")
        return user or self.fail("unknown")


class BookTokens(StrictSerializer):
    """A purchase needs the shop's reference, which is booked once; a grant needs a reason."""

    user = UserField()
    amount = serializers.IntegerField(min_value=1, max_value=10**9)
    reference = serializers.CharField(max_length=REFERENCE_LENGTH, allow_blank=True, default="")
    reason = serializers.CharField(max_length=1000, allow_blank=True, default="")
    kind = serializers.ChoiceField(["PURCHASE", "GRANT"], required=False)

    def validate(self, fields):
        fields.setdefault("kind", "PURCHASE" if fields["reference"] else "GRANT")
        needed = "reference" if fields["kind"] == "PURCHASE" else "reason"
        if not fields[needed]:
            raise serializers.ValidationError({needed: [f"A {fields['kind'].lower()} needs a {needed}."]}, "required")
        return fields


class Booking(serializers.Serializer):
    user = serializers.IntegerField()
    balance = serializers.IntegerField()
    transaction = TransactionObject()


class AdminTokens(View):
    """Books tokens for any shop: scope finance or admin."""

    permission_classes = [IsFinance]

    @extend_schema(
        operation_id="admin_tokens_book",
        request=BookTokens,
        responses={201: Booking, 200: Booking},
        parameters=[IDEMPOTENCY],
    )
    def post(self, request):
        """Book a PURCHASE or GRANT. The same Idempotency-Key and content answer with the first booking."""
        key = idempotency_key(request)
        wanted = BookTokens(data=request.data)
        wanted.is_valid(raise_exception=True)
        fields = wanted.validated_data
        if not desk.may_book_for(request.user, fields["user"].pk):
            raise Refused(ErrorCode.permission_denied, desk.OWN)
        give = ledger.purchase if fields["kind"] == "PURCHASE" else ledger.grant
        try:
            account, booked, replayed = _book(request, give, fields, key)
        except ledger.KeyReused as error:
            raise Refused(ErrorCode.idempotency_key_reused) from error
        except ledger.ReferenceUsed as error:
            raise Refused(ErrorCode.reference_used) from error
        except ledger.BalanceTooLarge as error:
            detail = f"An account may hold {MOST} tokens."
            raise Refused(ErrorCode.invalid_request, detail, fields=[("amount", "out_of_range", detail)]) from error
        body = {
            "user": account.pk,
            "balance": queries.balance(account.pk),
            "transaction": TransactionObject(booked).data,
        }
        headers = {"Idempotent-Replayed": "true"} if replayed else None
        return Response(body, status=200 if replayed else 201, headers=headers)


@write
def _book(
    request: Request, give: Callable, fields: dict[str, Any], key: str | None
) -> tuple[Account, Transaction, bool]:
    """Book and say so in the admin's log, both or neither; whether the key had booked before."""
    account = ledger.open_account(fields["user"].pk)
    Account.objects.select_for_update().get(pk=account.pk)  # the same key at the same time waits here
    replayed = bool(key) and Transaction.objects.filter(account=account, idempotency_key=key).exists()
    booked = give(account.pk, fields["amount"], reference=fields["reference"], reason=fields["reason"], key=key)
    if not replayed:
        _audit(request, account, booked)
    return account, booked, replayed


def _audit(request: Request, account: Account, booked: Transaction) -> None:
    """Say in the admin's log who booked, as a grant in the admin does."""
    balance = f"balance {booked.balance_after - booked.amount} → {booked.balance_after}"
    key = f" by key {request.auth.prefix}…" if isinstance(request.auth, ApiKey) else ""
    said = f"{booked.kind} {booked.amount} (booking {booked.pk}){key}, {balance}: {booked.reason or booked.reference}"
    LogEntry.objects.log_actions(request.user.pk, [account], CHANGE, said, single_object=True)
