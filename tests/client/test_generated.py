"""A client that a generator makes of the API's schema, for those who write another language: it comes without a
warning, and what it makes works against a live server."""

import importlib
import subprocess
import sys
from http import HTTPStatus
from io import BytesIO
from uuid import UUID

import pytest
from django.core.management import call_command

from tests import media_files
from tests.client import work

pytestmark = pytest.mark.once

NAME = "generated_jobsite"


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """generated("models") → that module of the generated package."""
    folder = tmp_path_factory.mktemp("generated")
    call_command("spectacular", "--file", str(folder / "schema.yaml"))
    (folder / "config.yaml").write_text("post_hooks: []\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning", "--meta", "none"]
    command += ["--path", "schema.yaml", "--output-path", NAME, "--config", "config.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "warning" not in done.stdout.lower()
    sys.path.insert(0, str(folder))
    yield lambda module: importlib.import_module(f"{NAME}.{module}")
    sys.path.remove(str(folder))


def test_a_generated_client_submits_reads_lists_and_cancels(generated, network, key, dish, tmp_path):
    models, types = generated("models"), generated("types")
    client = generated("client").AuthenticatedClient(network.url, key)

    def ask(call: str, *arguments, **options):
        return generated(f"api.{call}").sync_detailed(*arguments, client=client, **options)

    params = models.SubmitJobRequestParams.from_dict(dish)
    order = models.SubmitJobRequest(kind="KITCHEN", params=params)
    made = ask("jobs.jobs_submit", body=order, idempotency_key="one")
    assert (made.status_code, made.parsed.status) == (HTTPStatus.ACCEPTED, models.StatusEnum.QUEUED)
    assert ask("jobs.jobs_submit", body=order, idempotency_key="one").parsed.id == made.parsed.id
    work.finish(work.claimed(), tmp_path, dish_txt=b"soup")
    answer = ask("jobs.jobs_retrieve", made.parsed.id)
    job = answer.parsed
    unchanged = ask("jobs.jobs_retrieve", made.parsed.id, if_none_match=answer.headers["ETag"])
    assert (unchanged.status_code, unchanged.parsed) == (HTTPStatus.NOT_MODIFIED, None)
    assert (job.status, job.cost.charged, job.error, job.outputs[0].bytes_) == ("SUCCEEDED", 10, None, 4)
    assert job.params.additional_properties["price"] == 10
    for chosen in ({"search": "status:succeeded"}, {"status": [models.JobsListStatusItem.SUCCEEDED]}, {"limit": 1}):
        assert [one.id for one in ask("jobs.jobs_list", **chosen).parsed.results] == [job.id]
    assert ask("jobs.jobs_explain", job.id).parsed.money
    assert ask("jobs.jobs_output", job.id, "dish.txt").content == b"soup"

    film = types.File(payload=BytesIO(media_files.clip()), file_name="a.mp4", mime_type="video/mp4")
    upload = ask("uploads.uploads_create", body=models.UploadFormRequest(file=film)).parsed
    assert upload.reference == f"upload:{upload.id}"

    second = ask("jobs.jobs_submit", body=order).parsed
    cancelled = ask("jobs.jobs_cancel", second.id).parsed
    assert (cancelled.status, cancelled.cost.refunded) == ("CANCELED", 10)
    assert ask("tokens.tokens_retrieve").parsed.balance == 990
    assert ask("jobs.jobs_delete", second.id).status_code == HTTPStatus.NO_CONTENT
    for problem in (
        ask("jobs.jobs_retrieve", UUID(int=0)).parsed,
        ask("jobs.jobs_submit", body=models.SubmitJobRequest(kind="NOTHING")).parsed,
    ):
        assert isinstance(problem, models.Problem)
    assert problem.errors[0].field == "kind"
