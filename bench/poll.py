"""What polling a job costs: answers that nothing is new, beside a plain DRF view that answers with the row."""

import http.client
import time
from collections.abc import Callable

from django.conf import settings

from bench import Options, Row, median, turns
from bench.api import make_jobs
from bench.stage import Stage, wait
from jobs import keys, lifecycle
from jobs.models import Job
from jobsite import supervisor


def measure(stage: Stage, options: Options) -> list[Row]:
    """Requests a second over one kept connection to each of two uvicorns, in turns. The best of the job's states counts
    for the reference, ours are told apart."""
    secret = keys.issue(stage.owner, "bench")[1]
    done, _, _, queued = [f"/api/jobs/{job_id}/" for job_id in make_jobs(stage)]
    stage.platform("web")
    port = settings.PORT + 1
    web = next(process.command for process in supervisor.processes() if process.name == "web")
    swap = {"jobsite.asgi:application": "bench.plain:application", str(settings.PORT): str(port)}
    stage.start("plain", [swap.get(word, word) for word in web])
    ours, plain = Poller(settings.PORT, secret), Poller(port, secret)
    for poller, name in ((ours, "web"), (plain, "plain")):
        wait(lambda poller=poller: poller.ready(done), stage, name)
    number = 20 if options.quick else 300
    sides = [
        ours.polls(done, number, known=True),
        ours.polls(queued, number, known=True),
        ours.polls(done, number),
        plain.polls(done, number),
    ]
    same, waiting, full, reference = map(median, turns(options.rounds, *sides))
    for job in Job.objects.filter(owner=stage.owner, finished_at=None):
        lifecycle.cancel(job.pk, by="bench")
    return [
        Row("polls a second, an ended job, nothing new", same, reference, "≥ 3", "/s"),
        Row("polls a second, a queued job, nothing new", waiting, reference, "", "/s"),
        Row("polls a second, answered in full", full, reference, "", "/s"),
    ]


class Poller:
    """Asks one server with a key, over one connection."""

    def __init__(self, port: int, secret: str):
        self.connection = http.client.HTTPConnection(settings.HOST, port, timeout=30)
        self.headers = {"Authorization": f"Bearer {secret}"}

    def ask(self, path: str, **headers: str) -> http.client.HTTPResponse:
        self.connection.request("GET", path, headers=self.headers | headers)
        answer = self.connection.getresponse()
        answer.read()
        return answer

    def ready(self, path: str) -> bool:
        try:
            return self.ask(path).status == 200
        except OSError:
            self.connection.close()
            return False

    def polls(self, path: str, number: int, *, known: bool = False) -> Callable[[], float]:
        """Measures requests a second; `known`: with the tag of what there is."""

        def rate() -> float:
            self.connection.close()  # the server did so while the other side had its turn
            headers = {"If-None-Match": self.ask(path).headers["ETag"]} if known else {}
            began = time.perf_counter()
            for _ in range(number):
                if self.ask(path, **headers).status != (304 if known else 200):
                    raise RuntimeError(f"GET {path} did not answer as it should")
            return number / (time.perf_counter() - began)

        return rate
