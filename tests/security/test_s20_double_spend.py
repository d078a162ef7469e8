"""S20: fifty submits at once with money for one: one job, forty-nine refusals."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from jobs import keys
from jobs.models import Job
from tests.clients import ApiClient
from tokens import ledger
from tokens.models import Account

AT_ONCE, CLIENTS = 50, 10


@pytest.mark.django_db(transaction=True)
def test_the_last_tokens_are_spent_once(ann):
    ledger.charge(ann.pk, 990, reference="spent before")  # 10 left: one job
    secret = keys.issue(ann, "test")[1]
    together = threading.Barrier(CLIENTS)

    def submit(number: int) -> int:
        client = ApiClient(headers={"Authorization": f"Bearer {secret}"})
        try:
            if number < CLIENTS:
                together.wait(10)
            return client.send("/api/jobs/", {"kind": "KITCHEN", "params": {"price": 10}}).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = sorted(pool.map(submit, range(AT_ONCE)))
    assert answers == [202] + [402] * (AT_ONCE - 1)
    assert Job.objects.count() == 1
    assert Account.objects.get(pk=ann.pk).balance == 0
    assert ledger.drifted() == []
