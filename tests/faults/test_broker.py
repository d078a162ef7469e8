"""F11, F12, F13, F16: the broker forgets, dies, freezes, or hands over rubbish. Rows decide, so no job is lost."""

import json
import signal

from jobs import keys
from jobs.models import Job, JobEvent, Status
from jobsite.celery import app
from tests.faults.rig import cook, final, fresh, is_running, until


def succeeded(*jobs: Job, seconds: float = 60) -> None:
    assert {(job.status, job.attempt) for job in final(*jobs, seconds=seconds)} == {(Status.SUCCEEDED, 1)}


def test_a_broker_that_is_flushed_all_the_time_loses_no_job(platform, ann):
    platform.up()
    jobs = [cook(ann, seconds=0.3) for _ in range(10)]

    def ended_despite_a_flush():
        platform.valkey("FLUSHALL")
        return not Job.objects.exclude(status=Status.SUCCEEDED).exists()

    until(ended_despite_a_flush, seconds=60, every=0.5)
    succeeded(*jobs)


def test_a_broker_that_dies_and_comes_back_finds_its_workers(platform, ann):
    """Submits go on meanwhile, over the API too; nothing has to be done by hand afterwards."""
    platform.up()
    platform.web()
    _, key = keys.issue(ann, "test")
    running = cook(ann, seconds=2)
    until(is_running(running), seconds=20)

    platform.kill("broker")
    platform.broker()  # at once
    succeeded(running, cook(ann))

    platform.kill("broker")
    status, answer = platform.get("/api/jobs/", key, "POST", {"kind": "KITCHEN", "params": {}})
    assert status == 202, answer
    by_api = Job.objects.get(pk=answer["id"])
    lost = "connection to broker lost"
    until(lambda: all(lost in platform.log(name).lower() for name in ("worker", "upkeep")), seconds=20)
    waiting = cook(ann)
    platform.broker()
    succeeded(by_api, waiting)


def test_a_frozen_broker_stops_neither_the_web_nor_heartbeats(platform, ann):
    platform.up()
    platform.web()
    _, key = keys.issue(ann, "test")
    running = cook(ann, seconds=4)
    until(is_running(running), seconds=20)

    platform.kill("broker", signal.SIGSTOP)
    for _ in range(3):
        order = {"kind": "KITCHEN", "params": {}}
        status, answer = platform.get("/api/jobs/", key, "POST", order)
        assert status == 202, answer
        assert platform.get("/api/jobs/", key)[0] == 200
    assert platform.get("/livez")[0] == 200
    beat_at = fresh(running).heartbeat_at
    until(lambda: fresh(running).heartbeat_at > beat_at, seconds=10)
    until(lambda: fresh(running).status == Status.SUCCEEDED, seconds=20)  # nor the run and its settling

    platform.kill("broker", signal.SIGCONT)
    succeeded(*Job.objects.all())


def test_doubled_foreign_and_broken_messages_claim_nothing(platform, ann):
    """The worker that got them lives on with the same pool, and its next job runs."""
    platform.broker()
    worker = platform.worker()
    pool = set(platform.pool())
    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection)

        def send(*args, task="jobs.work", queue="cpu"):
            app.send_task(task, args=args, queue=queue, producer=producer, ignore_result=True)

        for _ in range(300):
            send("cpu")
        for wrong in ("nobody's", "", "cpu; DROP TABLE jobs_job", None, 7, ["cpu"], {"queue": "cpu"}):
            send(wrong)
        send("cpu", "and more")
        send()
        send(task="jobs.unknown")
        send(task="os.system")
        producer.publish("cos\nsystem\n(S'true'\ntR.", routing_key="cpu", content_type="application/x-python-serialize")
        producer.publish("no task at all", routing_key="cpu", serializer="json")
    platform.valkey("LPUSH", "cpu", json.dumps({"headers": {"task": "jobs.work"}}))  # no envelope
    until(lambda: not platform.valkey("LLEN", "cpu"), seconds=60)
    platform.beat()  # a nudge may be lost in the connection that the broken messages ended: the top-up sends it again
    succeeded(cook(ann), cook(ann))
    assert JobEvent.objects.filter(status=Status.RUNNING).count() == 2
    assert worker.poll() is None
    assert set(platform.pool()) == pool


def test_what_is_no_json_ends_a_worker_once(platform, ann):
    """Celery's main process ends at it, and whoever watches it starts another: by then the message is gone."""
    platform.env["JOB_LINGER_SECONDS"] = "0"  # a slot that listens takes no messages
    platform.up()
    running = cook(ann, seconds=3)
    until(is_running(running), seconds=20)
    platform.valkey("LPUSH", "cpu", "not even JSON")
    platform.children["worker"].wait(60)
    second = platform.worker("second")
    ended = final(running, cook(ann), seconds=60)
    assert {job.status for job in ended} == {Status.SUCCEEDED}
    assert second.poll() is None
