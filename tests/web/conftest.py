"""Ann and Bob signed in, beside the jobs that need no worker."""

import pytest
from django.test import Client

from tests.jobs.conftest import as_ann, running, submit, succeeded  # noqa: F401 - fixtures


@pytest.fixture
def ann_web(ann):
    """Ann's browser, without JavaScript."""
    client = Client()
    client.force_login(ann)
    return client


@pytest.fixture
def bob_web(bob):
    client = Client()
    client.force_login(bob)
    return client
