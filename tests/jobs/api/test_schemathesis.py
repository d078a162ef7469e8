"""Whatever the OpenAPI document allows, and much that it forbids, is asked: no 5xx, no answer that it does not name.

Walks every operation that there is. Ids are those of what is there: jobs in every state, an upload, a webhook. Each
request is undone.
"""

import contextlib
import itertools
import os

import hypothesis
import pytest
import schemathesis
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections, transaction
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.hypothesis.builder import HypothesisTestConfig, HypothesisTestMode, create_test

from jobs import keys, lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Delivery
from tests import media_files
from tests.clients import ApiClient
from tests.jobs.conftest import PARAMS

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.timeout(400)]

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "2"))  # an operation, beside those at the bounds of its types
CONFIG = {
    "generation": {"with-security-parameters": False},
    # A cursor, a reference, a kind's params are more than their types: what the document allows may well be refused.
    "checks": {"positive_data_acceptance": {"enabled": False}},
}
REAL = {
    "/api/jobs/": {"kind": "KITCHEN", "params": PARAMS, "priority": 0},
    "/api/jobs/estimate/": {"kind": "KITCHEN", "params": PARAMS},
    "/api/webhooks/": {"url": "https://example.com/hook"},
    "/api/admin/tokens/": {"user": "ann", "kind": "GRANT", "reason": "for the test", "amount": 5},
}
NEVER_2XX = {  # and why
    "GET /api/cron/cleanup-jobs/",  # wants CRON_SECRET
    "GET /health/",  # no worker beats
    "POST /api/uploads/multipart/",  # wants a bucket
}


@pytest.fixture
def ids(ann, submit, running, succeeded):
    """Path parameter → the ids that it may stand for, for ever."""
    failed = running()
    lifecycle.fail(failed, JobError(ErrorCode.bad_input))
    canceled = lifecycle.cancel(submit().pk, by="test")
    states = [succeeded().pk, failed.job_id, canceled.pk, running().job_id, submit().pk]
    as_ann = ApiClient(ann)
    upload = as_ann.post("/api/uploads/", {"file": SimpleUploadedFile("a.mp4", media_files.clip())}).json()
    webhook = as_ann.send("/api/webhooks/", {"url": "https://example.com/hook"}).json()
    as_ann.send(f"/api/webhooks/{webhook['id']}/test/")
    known = {
        "job_id": states,
        "name": ["dish.txt"],
        "upload_id": [upload["id"]],
        "webhook_id": [webhook["id"]],
        "delivery_id": [Delivery.objects.get().pk],
    }
    return {name: itertools.cycle([str(one) for one in ids]) for name, ids in known.items()}


@pytest.fixture
def application():
    """The platform; requests do not close the test's connection, as with Django's own test client."""
    django = get_wsgi_application()

    def answer(environ, start_response):
        with contextlib.closing(django(environ, start_response)) as body:
            return list(body)

    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield answer
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def test_every_answer_is_one_that_the_document_names(ids, ann, op, application):
    """Seen red with a 500 planted in a view, and with an answer's field taken out of its serializer."""
    config = SchemathesisConfig.from_dict(CONFIG)
    schema = schemathesis.openapi.from_wsgi("/api/schema/?format=json", application, config=config)
    user, admin = keys.issue(ann, "schemathesis")[1], keys.issue(op, "schemathesis", "admin")[1]
    wrong: dict[str, str] = {}
    well: set[str] = set()
    turn = itertools.count()

    def ask(case):
        label = case.operation.label
        _make_real(case, ids, simple=next(turn) % 2 == 0)
        headers = {"Authorization": f"Bearer {admin if '/admin/' in label else user}"}
        with transaction.atomic():
            try:
                answer = case.call(headers=headers)
                if answer.status_code < 400:
                    well.add(label)
                if (
                    str(answer.status_code) not in case.operation.definition.raw["responses"]
                    or answer.status_code < 500
                ):
                    case.validate_response(answer, headers=headers)
            except FailureGroup as group:
                wrong.update({f"{label}: {one.title}": f"{one}\n{case.as_curl_command()}" for one in group.exceptions})
            except Failure as one:
                wrong[f"{label}: {one.title}"] = f"{one}\n{case.as_curl_command()}"
            transaction.set_rollback(True)

    settings = hypothesis.settings(
        max_examples=EXAMPLES, database=None, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
    )
    labels = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        labels.add(operation.label)
        config = HypothesisTestConfig(project=schema.config, modes=list(HypothesisTestMode), settings=settings)
        create_test(operation=operation, test_func=ask, config=config)()
    assert not wrong, "\n".join(f"{where}\n{text}" for where, text in sorted(wrong.items()))
    assert labels - well - NEVER_2XX == set()


def _make_real(case, ids, *, simple: bool) -> None:
    """Let what is right by its type be something that is there; `simple`: and what is asked with it nothing odd."""
    parts = {part: info.mode for part, info in case.meta.components.items()}
    for name in case.path_parameters or {}:
        if name in ids and parts.get(ParameterLocation.PATH) != GenerationMode.NEGATIVE:
            case.path_parameters[name] = next(ids[name])
    if GenerationMode.NEGATIVE in parts.values():
        return
    if simple:
        case.query, case.cookies = {}, {}
    if case.method == "POST" and case.operation.path in REAL and isinstance(case.body, dict):
        case.body = REAL[case.operation.path] if simple else case.body | REAL[case.operation.path]
