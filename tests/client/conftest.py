"""The client against the platform's web process in a thread, by way of a network that may be bad."""

import pytest
from jobsite_client import Jobsite

from jobs import keys
from tests.client import network as networks
from tests.jobs.conftest import PARAMS
from tests.live import Live


@pytest.fixture(scope="session")
def server():
    web = Live()
    yield web.url
    web.close()


@pytest.fixture
def network(server):
    with networks.before(server) as network:
        yield network


@pytest.fixture
def key(transactional_db, ann):
    return keys.issue(ann, "client")[1]


@pytest.fixture
def naps():
    """The pauses that the client made, in seconds; they are not slept."""
    return []


@pytest.fixture
def jobs(network, key, naps):
    """Ann's client, which does not sleep longer than a moment."""
    from time import sleep

    def nap(seconds: float) -> None:
        naps.append(seconds)
        sleep(min(seconds, 0.02))

    with Jobsite(network.url, key, timeout=10, sleep=nap) as client:
        yield client


@pytest.fixture
def dish():
    """The params of a job of the KITCHEN kind that costs 10."""
    return PARAMS
