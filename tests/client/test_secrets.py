"""The key is on the wire and nowhere else: no repr, no log line, no error, not even the locals of a traceback."""

import logging
import traceback

import pytest
from jobsite_client import Jobsite, JobsiteError, config
from jobsite_client.wire import Bearer

from tests.client.network import Trouble

pytestmark = pytest.mark.once


def test_nothing_shows_the_key(jobs, dish, network, key, caplog):
    caplog.set_level(logging.DEBUG)
    network.plan += [Trouble("GET", "/api/tokens/", "unheard", times=5), Trouble("GET", "/api/tokens/", "500", times=5)]
    shown = [
        repr(jobs),
        repr(vars(jobs)),
        repr(vars(jobs._calls)),
        repr(vars(jobs._calls._wire)),
        repr(config.find("http://x", key)),
    ]
    for _ in range(2):
        with pytest.raises(JobsiteError) as caught:
            jobs.balance()
        assert caught.value.__suppress_context__  # below are frames of h11, which hold what goes on the wire
        told = traceback.StackSummary.extract(traceback.walk_tb(caught.tb), capture_locals=True)
        shown += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
        shown += [str(frame.locals) for frame in told if frame.filename != __file__]
    jobs.submit("KITCHEN", dish)
    shown += [record.getMessage() for record in caplog.records] + [caplog.text]
    assert any("httpcore" in record.name for record in caplog.records)  # the wordiest of them was listened to
    assert [text for text in shown if key in text] == []
    assert [one for one in network.seen if key in str(one.headers)] == network.seen  # and the probe knows it


def test_a_key_that_is_none_is_not_shown_either():
    with pytest.raises(ValueError) as caught:
        Jobsite("http://127.0.0.1:1", "js_se\ncret")
    assert "cret" not in str(caught.value)
    assert "secret" not in repr(Bearer("js_secret"))
