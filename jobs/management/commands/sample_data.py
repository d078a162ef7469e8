from django.core.management import BaseCommand, CommandError

from jobs import erasure, sample_data, sample_story


class Command(BaseCommand):
    help = "Fill a fresh platform with something to see, or remove it (--remove). Shows what; --execute does it."

    def add_arguments(self, parser):
        parser.add_argument("--remove", action="store_true", help="take the sample data away again")
        parser.add_argument("--execute", action="store_true")

    def handle(self, *, remove, execute, **options):
        if remove:
            self._remove(execute)
        else:
            self._lay(execute)

    def _lay(self, execute: bool) -> None:
        if why := sample_story.why_not():
            raise CommandError(why)
        if not execute:
            self.stdout.write(
                "would add three users (sample-…) with tokens, 25 jobs of every kind and status over the last day, a"
                " webhook and a cleanup; half are really run here, on the CPU, within a minute. Can be removed."
                f" {sample_data.STAYS} --execute does it"
            )
            return
        sample_story.lay(self.stdout.write)
        self.stdout.write("Sample data is here. `manage.py user invite sample-ann` lets you in as one of its users.")

    def _remove(self, execute: bool) -> None:
        if not sample_data.here():
            raise CommandError("No sample data is here.")
        if execute:
            self.stdout.write(sample_data.remove(by="manage.py sample_data"))
            if sample_data.here():
                raise CommandError("Not all of it could be removed.")
            return
        for user in sample_data.users():
            found = erasure.belongings(user)
            self.stdout.write(
                f"would forget {user}: {found.jobs} jobs, {found.outputs} outputs, {found.uploads} uploads"
            )
        self.stdout.write(f"{sample_data.STAYS} --execute does it")
