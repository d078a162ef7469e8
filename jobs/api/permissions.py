"""What a key's scope or a session's role allows: user < viewer < operator and finance < admin (see `jobs.roles`)."""

from django.http import HttpRequest
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from .. import roles
from ..models import ApiKey, Job, Scope


def scopes_of(request: Request | HttpRequest) -> frozenset[Scope]:
    """The scopes that the request acts with: its key's, else those of its user's groups."""
    key = getattr(request, "auth", None)
    return frozenset([Scope(key.scope)]) if isinstance(key, ApiKey) else roles.scopes_of(request.user)


def scope_of(request: Request | HttpRequest) -> Scope:
    """The strongest of them."""
    return roles.strongest(scopes_of(request))


def sees_all(request: Request | HttpRequest) -> bool:
    """Whether everybody's jobs may be read."""
    return request.user.is_authenticated and scope_of(request) != Scope.USER


def may_operate(request: Request | HttpRequest) -> bool:
    """Whether everybody's jobs may be acted on."""
    return request.user.is_authenticated and not scopes_of(request).isdisjoint([Scope.OPERATOR, Scope.ADMIN])


def may_act_on(request: Request | HttpRequest, job: Job) -> bool:
    """Whether this job may be cancelled, retried or deleted: one's own, or any for operators."""
    return job.owner_id == request.user.pk or may_operate(request)


class IsFinance(BasePermission):
    """Books tokens: scope finance or admin."""

    def has_permission(self, request, view) -> bool:
        return request.user.is_authenticated and not scopes_of(request).isdisjoint([Scope.FINANCE, Scope.ADMIN])


class IsAdmin(BasePermission):
    """Scope admin."""

    def has_permission(self, request, view) -> bool:
        return request.user.is_authenticated and scope_of(request) == Scope.ADMIN
