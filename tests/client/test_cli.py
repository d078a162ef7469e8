"""The commands, as a person and as a script use them: what is printed where, and the exit code."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from jobsite_client import config
from jobsite_client.__main__ import main

from jobs import lifecycle
from jobs.errors import ErrorCode, JobError
from jobs.models import Job
from tests import media_files
from tests.client import work
from tests.client.network import Trouble
from tests.waiting import until

SOURCES = Path(__file__).parents[2] / "client" / "src"

pytestmark = pytest.mark.once


@pytest.fixture
def cli(monkeypatch, tmp_path, capsys, network, key):
    """cli("list", …) → (exit code, standard output, standard error), with Ann's key in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBSITE_URL", network.url)
    monkeypatch.setenv("JOBSITE_KEY", key)
    monkeypatch.setenv("JOBSITE_CONFIG", str(tmp_path / "config" / "config.json"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert key not in out + err
        return code, out, err

    return run


def test_run_waits_fetches_and_prints_the_file(cli, tmp_path):
    with work.hand(lambda: work.finish(work.claimed(), tmp_path, dish_txt=b"soup")):
        code, out, err = cli("run", "kitchen", "-p", "price=7", "-p", "seconds=0.5", "--wait", "-o", "mine.txt")
    assert (code, out, Path("mine.txt").read_bytes()) == (0, "mine.txt\n", b"soup")
    job = Job.objects.get()
    assert (job.params["price"], job.params["seconds"]) == (7, 0.5)
    assert f"{job.pk}  succeeded  100%\n" in err  # in lines, since this is no terminal
    assert cli("status", str(job.pk), "--json")[0] == 0
    code, out, _ = cli("download", str(job.pk), "--json")
    assert (code, json.loads(out)) == (0, ["dish.txt"])
    assert cli("download", str(job.pk), "--name", "none")[0] == 2
    assert cli("explain", str(job.pk))[0] == 0
    assert cli("logs", str(job.pk), "--follow")[0] == 0


def test_the_exit_code_is_the_outcome(cli, network):
    def fail():
        lifecycle.fail(work.claimed(), JobError(ErrorCode.bad_input, "Too \x1b[31mhot."))

    with work.hand(fail):
        code, out, err = cli("run", "KITCHEN")
    assert (code, out) == (1, "")
    assert "bad_input: Too  [31mhot." in err  # what others wrote does not steer the terminal
    failed = str(Job.objects.get().pk)
    assert cli("watch", failed)[0] == 1
    assert cli("run", "KITCHEN", "--timeout", "0.1")[0] == 4
    code, out, _ = cli("list", "status:queued", "kind:kitchen", "after:2020-01-31", "--json")
    waiting = json.loads(out)["id"]
    assert (code, waiting != failed) == (0, True)
    assert cli("cancel", waiting)[:2] == (0, f"{waiting}\n")
    assert cli("watch", waiting)[0] == 3
    assert cli("retry", waiting)[0] == 6
    assert cli("retry", failed)[0] == 0
    assert cli("download", failed)[0] == 4
    assert cli("delete", failed)[0] == 0
    assert cli("status", failed)[0] == 6
    for usage in (["status", "no-uuid"], ["run"], ["run", "NOTHING"], ["list", "colour:red"], ["list", "after:noon"]):
        assert cli(*usage)[0] == 2, usage
    assert cli("submit", "KITCHEN", "-p", "price")[0] == 2
    assert cli("submit", "KITCHEN", "-p", "price=1001")[0] == 2
    assert cli("upload", "none.mp4")[0] == 7
    network.plan.append(Trouble("GET", "/api/tokens/", "3" + "02"))
    assert cli("tokens")[0] == 5


def test_prices_tokens_uploads_and_lists(cli, network):
    assert cli("estimate", "kitchen", "-p", "price=7")[1] == "7 tokens\n"
    assert cli("estimate", "kitchen", "-p", "price=1")[1] == "1 token\n"
    assert json.loads(cli("estimate", "kitchen", "-p", "price=7", "--json")[1])["cost"] == 7
    Path("a.mp4").write_bytes(media_files.clip())
    code, out, _ = cli("upload", "a.mp4")
    assert (code, out.startswith("upload:")) == (0, True)
    code, out, _ = cli("estimate", "stitch", "-p", "clips=@a.mp4", "-p", "clips=@a.mp4", "--json")
    clips = json.loads(out)["params"]["clips"]
    assert [clip.startswith("upload:") for clip in clips] == [True, True]
    Path("params.json").write_text('{"price": 3}')
    first = cli("submit", "kitchen", "--params", "params.json", "--idempotency-key", "one")[1]
    assert cli("submit", "kitchen", "--params", "params.json", "--idempotency-key", "one")[1] == first
    assert cli("list")[1].count("KITCHEN") == 1
    second = cli("submit", "kitchen", "--meta", "order=A 17", "--deadline", "3600")[1]
    assert Job.objects.get(pk=second.strip()).deadline_seconds == 3600
    for words in (["meta.order:A 17"], ["kind:kitchen", "meta.order:A 17"], [second.strip()]):
        assert cli("list", *words)[1].startswith(second.strip()), words
    assert cli("list", "kind:kitchen", "status:failed", "status:queued")[1].count("KITCHEN") == 2
    assert cli("list", "code:bad_input")[1] == ""
    assert cli("cancel", second.strip())[0] == 0
    out = cli("tokens")[1]
    assert (out.startswith("997 tokens\n"), "-3" in out) == (True, True)
    assert json.loads(cli("tokens", "--json")[1])["balance"] == 997


def test_login_keeps_the_key_for_its_owner_and_its_address_alone(cli, monkeypatch, network, server, key):
    monkeypatch.delenv("JOBSITE_URL")
    monkeypatch.delenv("JOBSITE_KEY")
    assert cli("tokens")[0] == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("js_wrong\n"))
    assert cli("login", network.url)[0] == 6
    assert not config.file().exists()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{key}\n"))
    code, out, err = cli("login", network.url)
    assert (code, out) == (0, "")
    assert "1000 tokens" in err
    assert stat.S_IMODE(config.file().stat().st_mode) == 0o600
    assert cli("tokens")[0] == 0
    monkeypatch.setenv("JOBSITE_URL", server)  # another one: it must not get this one's key
    assert cli("tokens")[0] == 2
    config.file().write_text("?")
    assert cli("tokens")[0] == 2


def test_as_a_process_with_a_pipe_and_ctrl_c(network, key, dish):
    environment = {
        **os.environ,
        "PYTHONPATH": str(SOURCES),
        "JOBSITE_URL": network.url,
        "JOBSITE_KEY": key,
    }
    command = ["env", "--default-signal=INT"]  # whoever started the tests may ignore it
    command += [sys.executable, "-m", "jobsite_client", "run", "KITCHEN", "--json"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(process.stderr), daemon=True)
    reader.start()
    try:
        until(lambda: any("waiting" in line for line in told), seconds=30)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 3
        reader.join(5)
    finally:
        process.kill()
        process.wait(5)
    job = Job.objects.get()
    assert job.status == "CANCELED"
    assert f"Job {job.pk} is CANCELED." in "".join(told)
    assert "Traceback" not in "".join(told)
    with process.stdout as out:
        assert out.read() == ""
    process.stderr.close()
