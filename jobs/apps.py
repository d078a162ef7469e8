from django.apps import AppConfig
from django.apps import apps as all_apps
from django.apps.registry import Apps
from django.db.models.signals import post_migrate


class JobsConfig(AppConfig):
    name = "jobs"

    def ready(self) -> None:
        from . import doctor, kinds

        kinds.load()
        doctor.register()
        post_migrate.connect(_install_roles, sender=self)  # after Django has made this app's permissions


def _install_roles(apps: Apps = all_apps, **signal) -> None:  # a flush names no apps
    from . import roles

    if "auth.group" in {model._meta.label_lower for model in apps.get_models()}:  # not yet, where apps migrate singly
        roles.install()
