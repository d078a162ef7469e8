"""Who may do what: four roles, as Django groups, and the scope that a session acts with because of them.

The admin asks the groups' permissions, the API and the pages the scope; both come from this table. Two things are
needed to have a role: the group, and the user's "staff" mark, without which the admin's door stays shut.
"""

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AbstractUser, AnonymousUser, Group, Permission
from django.db.models import Q

from .models import Scope

ROLES = [Scope.ADMIN, Scope.OPERATOR, Scope.FINANCE, Scope.VIEWER]  # strongest first; groups are named so
APPS = ["jobs", "tokens", "django_celery_beat", "auth", "admin"]
OPERATES = {  # of jobs: which permissions an operator has besides reading
    "job": ["change"],
    "cleanuprun": ["change"],
    "policy": ["add", "change", "delete"],
    "pause": ["add", "change", "delete"],
    "alert": ["change"],
    "endpoint": ["change"],
    "delivery": ["change"],
    "upload": ["change", "delete"],
    "partupload": ["change", "delete"],
}


def install() -> None:
    """Make the four groups and give them exactly their permissions. Run after each `migrate`, since only then the
    permissions of new tables exist; a mix of one's own is a group of one's own."""
    of_ours = Permission.objects.filter(content_type__app_label__in=APPS)
    reads = Q(codename__startswith="view_")
    operates = Q(
        content_type__app_label="jobs",
        codename__in=[f"{verb}_{model}" for model, verbs in OPERATES.items() for verb in verbs],
    )
    books = Q(content_type__app_label="tokens", codename="grant_tokens")
    for role, which in {
        Scope.VIEWER: reads,
        Scope.OPERATOR: reads | operates,
        Scope.FINANCE: reads | books,
        Scope.ADMIN: Q(),
    }.items():
        Group.objects.get_or_create(name=role.value)[0].permissions.set(of_ours.filter(which))


def scopes_of(user: AbstractBaseUser | AnonymousUser) -> frozenset[Scope]:
    """The scopes that the user's groups give. One statement at most for a user object, none for customers."""
    if not (isinstance(user, AbstractUser) and user.is_active):
        return frozenset()
    if user.is_superuser:
        return frozenset([Scope.ADMIN])
    if not user.is_staff:
        return frozenset([Scope.USER])
    if not hasattr(user, "_scopes"):  # a user object lives as long as its request
        names = user.groups.filter(name__in=[role.value for role in ROLES]).values_list("name", flat=True)
        user._scopes = frozenset([Scope.USER, *map(Scope, names)])
    return user._scopes


def strongest(scopes: frozenset[Scope]) -> Scope:
    """The one scope by which a person is called; `user` where there is no role."""
    return next((role for role in ROLES if role in scopes), Scope.USER)
