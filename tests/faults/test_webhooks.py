"""F44: a receiver that hangs holds no job, no watchman and no other endpoint; what it got no answer to survives a
kill -9 of the sender. 500 and 410 are in tests/jobs/test_webhooks.py."""

from django.db.models.functions import Now
from django.utils import timezone

from jobs import lifecycle, webhooks
from jobs.engines import outbound
from jobs.models import Delivery, Status, Tick
from jobsite.celery import app
from tests.faults.rig import cook, final, until
from tests.receiver import receiver, status


def tick(name: str) -> None:
    """Let a watchman's next turn come now."""
    Tick.objects.filter(name=name).update(ran_at=None)
    app.send_task(f"jobs.{name}", queue="upkeep")


def ran(name: str, since) -> bool:
    return Tick.objects.filter(name=name, ran_at__gt=since).exists()


def test_a_receiver_that_hangs(platform, ann, bob, settings):
    with receiver() as evil, receiver() as good:
        evil.says = evil.hang
        platform.env["WEBHOOK_NETWORKS"] = "127.0.0.0/8"
        settings.JOBSITE = {**settings.JOBSITE, "WEBHOOK_NETWORKS": outbound.LOOPBACK}
        bad, secret = webhooks.create(ann.pk, url=evil.url)
        _, other = webhooks.create(bob.pk, url=good.url)
        platform.broker()
        first = cook(ann)
        lifecycle.cancel(first.pk, by="test")
        platform.worker(slots=1)
        platform.worker("upkeep", queues="upkeep", slots=1)  # one turn of each short watchman, as it begins
        until(lambda: evil.got, seconds=30)

        began = timezone.now()
        theirs = cook(bob)  # no job of anybody waits for it, nor does another's message
        (done,) = final(theirs)
        assert done.status == Status.SUCCEEDED
        tick("deliver_webhooks")
        tick("monitor_heartbeats")
        until(lambda: good.got and ran("monitor_heartbeats", began), seconds=20)
        assert len(evil.got) == 1 and Delivery.objects.get(endpoint=bad).log == []  # which still hangs
        assert good.verified(other)[0]["data"]["id"] == str(theirs.pk)

        platform.kill("upkeep")  # and its children with it
        evil.says = status(204)
        Delivery.objects.filter(endpoint=bad).update(next_at=Now())  # its lease, a minute, is over
        Tick.objects.update(ran_at=None)
        platform.worker("heir", queues="upkeep", slots=1)
        until(lambda: Delivery.objects.filter(endpoint=bad, delivered_at__isnull=False), seconds=30)
        assert len(evil.got) == 2 and len(set(evil.ids)) == 1
        assert [message["data"]["id"] for message in evil.verified(secret)] == [str(first.pk)] * 2
