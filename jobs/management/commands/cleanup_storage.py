from django.core.management import BaseCommand, CommandError
from django.template.defaultfilters import filesizeformat

from jobs import artifacts, blobs, integrity, kinds, retention, uploads
from jobs.models import Job


class Command(BaseCommand):
    help = "Delete old jobs with their files, and files without a row. Shows what would be deleted; --execute does it."

    def add_arguments(self, parser):
        parser.add_argument("--days", type=float, help="jobs that ended more than so many days ago")
        parser.add_argument("--kind", default="", help="only jobs of this kind")
        parser.add_argument(
            "--orphaned", action="store_true", help="files without a row; rows without a file are named"
        )
        parser.add_argument("--execute", action="store_true", help="do it; without it nothing is changed")

    def handle(self, *, days, kind, orphaned, execute, **options):
        if days is None and not orphaned:
            raise CommandError("Say --days N, --orphaned, or both.")
        if days is not None and not 0 <= days <= 36_500:
            raise CommandError("--days must be a number from 0 to 36500.")
        if kind and kind not in kinds.names() and not Job.objects.filter(kind=kind).exists():
            raise CommandError(f"There is no kind {kind}; there are {', '.join(kinds.names())}.")
        failed = 0
        if days is not None:
            failed = self.delete(days, kind) if execute else self.show(days, kind)
        try:
            if orphaned:
                self.orphans(execute=execute)
        except OSError as error:
            raise CommandError(f"The storage fails: {blobs.words(error)}.") from error
        if failed:
            raise CommandError(f"{failed} jobs could not be deleted.")

    def show(self, days: float, kind: str) -> int:
        found, files, size = 0, 0, 0
        for job in retention.old(days, kind).iterator(chunk_size=500):
            found, files, size = found + 1, files + job.files, size + job.bytes
            ended = f"{job.finished_at:%Y-%m-%d}"
            self.stdout.write(f"{job.pk} {job.kind} {job.status}, ended {ended}: {job.files} files, {_size(job.bytes)}")
        self.stdout.write(f"would delete {found} jobs, {files} files, {_size(size)}; --execute does it")
        return 0

    def delete(self, days: float, kind: str) -> int:
        report = retention.delete(retention.old(days, kind), by="command")
        for job_id, why in report.failed:
            self.stderr.write(f"{job_id} is kept: {why}")
        self.stdout.write(f"deleted {report.jobs} jobs, {report.files} files, {_size(report.bytes)}")
        return len(report.failed)

    def orphans(self, *, execute: bool) -> None:
        found = [*artifacts.orphans(), *uploads.orphans()]
        for blob in found:
            self.stdout.write(f"{blob.key}: no row, {_size(blob.bytes)}")
        for row, damage in integrity.astray():
            self.stdout.write(f"{row.key}: {damage.label}; its row stays")
        gone = artifacts.sweep() + uploads.sweep_orphans() if execute else len(found)
        size = _size(sum(blob.bytes for blob in found))
        self.stdout.write(
            f"deleted {gone} orphaned files" if execute else f"would delete {gone} files, {size}; --execute does it"
        )


def _size(count: int) -> str:
    return filesizeformat(count).replace("\xa0", " ")
