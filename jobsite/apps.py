from django.apps import AppConfig


class JobsiteConfig(AppConfig):
    """The project itself as an app: it brings `manage.py up`."""

    name = "jobsite"
