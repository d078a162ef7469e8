"""Ours, with one address alone."""

from jobsite.settings import *  # noqa: F403

ROOT_URLCONF = "bench.plain"
