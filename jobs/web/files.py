"""Files in forms: brought with the form, chosen among one's earlier ones, moved up and taken out of a list."""

from collections.abc import Iterable
from pathlib import Path

from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from jobs import intake, queries, uploads
from jobs.models import Artifact, Job, Status, Upload

from ..errors import Refused
from .forms import Field

EARLIER_MOST = 50  # uploads, and jobs, that are offered


def bring(request: HttpRequest, made: Iterable[Field]) -> None:
    """Keep what came with the form, by the code that keeps the API's uploads; refusals are told at the field."""
    for one in made:
        if one.control not in ("file", "files"):
            continue
        for file in request.FILES.getlist(f"{one.name}:file"):
            try:
                kept = _kept(request.user.pk, file)
            except Refused as refused:
                one.errors.append(f"{uploads.label(file.name)}: {refused.detail}")
                continue
            if one.control == "file":
                one.value = kept
            else:
                one.chosen.append((kept, kept))


def _kept(owner_id: int, file: TemporaryUploadedFile) -> str:
    intake.check_walls()
    path = Path(file.temporary_file_path())
    try:
        return f"upload:{uploads.take_in(owner_id, path=path, sha256=file.sha256, name=file.name).pk}"
    finally:
        path.unlink(missing_ok=True)


def rearrange(made: Iterable[Field], wish: str, add: str) -> None:
    """Do what a button of a list of files says: `up:<field>:<index>`, `remove:<field>:<index>`, `add:<field>`; `add`
    is the reference to be added."""
    verb, _, rest = wish.partition(":")
    name, _, index = rest.rpartition(":") if verb != "add" else (rest, "", "")
    for one in made:
        if one.control != "files" or one.name != name:
            continue
        if verb == "add" and add:
            one.chosen.append((add, add))
        at = int(index) if index.isdecimal() and int(index) < len(one.chosen) else None
        if verb == "remove" and at is not None:
            del one.chosen[at]
        elif verb == "up" and at:
            one.chosen[at - 1], one.chosen[at] = one.chosen[at], one.chosen[at - 1]


def offer(user, made: list[Field]) -> None:
    """Give every field of files its choices: the user's latest uploads and outputs that it takes. Three statements at
    most, none for a form without files."""
    if not any(one.control in ("file", "files") for one in made):
        return
    known = _earlier(user)
    names = {reference: label for reference, label, _ in known}
    for one in made:
        if one.control not in ("file", "files"):
            continue
        one.choices = [
            (reference, label)
            for reference, label, content_type in known
            if {content_type, content_type.partition("/")[0]} & {*one.accepts}
        ]
        one.chosen = [(reference, names.get(reference, reference)) for reference, _ in one.chosen]
        if one.control == "file" and one.value and one.value not in dict(one.choices):
            one.choices.insert(0, (one.value, names.get(one.value, one.value)))


def _earlier(user) -> list[tuple[str, str, str]]:
    """(reference, label, content type) of what a user's next job may work on, newest first."""
    brought: list[Upload] = list(queries.uploads_of(user)[:EARLIER_MOST])
    done = queries.jobs_for(user).filter(status=Status.SUCCEEDED)[:EARLIER_MOST]
    jobs: list[Job] = list(queries.with_outputs(done))
    made: list[tuple[Job, Artifact]] = [(job, file) for job in jobs for file in job.outputs.all()]
    return [
        *((f"upload:{file.pk}", f"{file.name} ({_size(file)})", file.content_type) for file in brought),
        *(
            (
                f"job:{job.pk}/{file.name}",
                f"{job.kind} …{str(job.pk)[-8:]}: {file.name} ({_size(file)})",
                file.content_type,
            )
            for job, file in made
        ),
    ]


def _size(file: Upload | Artifact) -> str:
    return filesizeformat(file.bytes).replace("\xa0", " ")
