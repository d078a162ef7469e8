"""What a key's scope allows: user < viewer < operator and finance < admin. A superuser's session counts as admin."""

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from ..models import ApiKey, Job, Scope


def scope_of(request: Request) -> Scope:
    """The scope that the request acts with."""
    if isinstance(request.auth, ApiKey):
        return Scope(request.auth.scope)
    return Scope.ADMIN if request.user.is_superuser else Scope.USER


def sees_all(request: Request) -> bool:
    """Whether everybody's jobs may be read."""
    return request.user.is_authenticated and scope_of(request) != Scope.USER


def may_operate(request: Request) -> bool:
    """Whether everybody's jobs may be acted on."""
    return request.user.is_authenticated and scope_of(request) in (Scope.OPERATOR, Scope.ADMIN)


def may_act_on(request: Request, job: Job) -> bool:
    """Whether this job may be cancelled, retried or deleted: one's own, or any for operators."""
    return job.owner_id == request.user.pk or may_operate(request)


class IsFinance(BasePermission):
    """Books tokens: scope finance or admin."""

    def has_permission(self, request, view) -> bool:
        return request.user.is_authenticated and scope_of(request) in (Scope.FINANCE, Scope.ADMIN)


class IsAdmin(BasePermission):
    """Scope admin."""

    def has_permission(self, request, view) -> bool:
        return request.user.is_authenticated and scope_of(request) == Scope.ADMIN
