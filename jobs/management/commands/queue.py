from django.core.management import BaseCommand, CommandError

from jobs import dispatch, pauses
from jobs.models import Pause


class Command(BaseCommand):
    help = "Show the queues, pause one (its jobs wait, what runs goes on), or let it go on."

    def add_arguments(self, parser):
        verbs = parser.add_subparsers(dest="verb")
        pause = verbs.add_parser("pause", help="claim no job of it from now on")
        pause.add_argument("queue")
        pause.add_argument("--reason", required=True, help="owners of waiting jobs read it; at most 200 characters")
        verbs.add_parser("resume", help="let it go on").add_argument("queue")

    def handle(self, *, verb=None, queue=None, reason="", **options):
        if queue is not None and queue not in dispatch.work_queues():
            raise CommandError(f"There is no queue {queue}; there are {', '.join(dispatch.work_queues())}.")
        if verb == "pause":
            if not 1 <= len(reason.strip()) <= 200:
                raise CommandError("--reason must have 1 to 200 characters.")
            pauses.pause(queue, reason=reason.strip(), by="command")
        elif verb == "resume" and not pauses.resume(queue, by="command"):
            self.stdout.write(f"{queue} was not paused")
        held = {row.queue: row for row in Pause.objects.all()}
        for name in dispatch.work_queues():
            row = held.get(name)
            state = f"paused since {row.since:%Y-%m-%d %H:%M} by {row.by}: {row.reason}" if row else "open"
            self.stdout.write(f"{name}: {dispatch.free_slots(name)} free slots, {state}")
        dispatch.flush()
