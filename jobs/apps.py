from django.apps import AppConfig
from django.apps import apps as all_apps
from django.apps.registry import Apps
from django.db import connections
from django.db.models.signals import post_migrate, pre_migrate


class JobsConfig(AppConfig):
    name = "jobs"

    def ready(self) -> None:
        from . import doctor, kinds

        kinds.load()
        doctor.register()
        pre_migrate.connect(_take_time, sender=self)
        post_migrate.connect(_install_roles, sender=self)  # after Django has made this app's permissions


def _take_time(using: str, **signal) -> None:
    """An index on a large table takes longer than a statement may otherwise (DATABASES); for this connection alone."""
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute("SET statement_timeout = 0")


def _install_roles(apps: Apps = all_apps, **signal) -> None:  # a flush names no apps
    from . import roles

    if "auth.group" in {model._meta.label_lower for model in apps.get_models()}:  # not yet, where apps migrate singly
        roles.install()
