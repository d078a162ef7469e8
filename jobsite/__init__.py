"""Jobsite: long GPU and media jobs for paying users, unattended."""

__version__ = "0.1.0"  # the only place; before the import, since the settings read it

from .celery import app as celery_app

__all__ = ["__version__", "celery_app"]
