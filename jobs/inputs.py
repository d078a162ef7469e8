"""Inputs: from references in params to files of the same owner."""

import uuid
from typing import Any

from .errors import ErrorCode, Refused
from .kinds.base import Kind
from .models import Artifact, JobInput, Status, Upload
from .models.job import is_uuid


def resolve(owner_id: int, kind: Kind, params: dict[str, Any]) -> list[JobInput]:
    """Unsaved JobInput rows for every reference in `params`, each named once.

    Raises Refused(input_not_found or bad_input) naming all fields at fault: another's file looks like none at all.
    """
    wanted = list(kind.inputs(params))
    if not wanted:
        return []
    uploads = {
        str(row.pk): row
        for row in Upload.objects.filter(owner_id=owner_id, pk__in=_ids(ref for _, ref, _ in wanted if ref[0] == "u"))
    }
    outputs: dict[str, list[Artifact]] = {}
    for row in Artifact.objects.filter(
        job__owner_id=owner_id,
        job__status=Status.SUCCEEDED,
        job_id__in=_ids(ref for _, ref, _ in wanted if ref[0] == "j"),
    ).order_by("id"):
        outputs.setdefault(str(row.job_id), []).append(row)
    found: dict[str, JobInput] = {}
    wrong, code = [], ErrorCode.input_not_found
    for param, reference, field in wanted:
        source, _, name = reference.partition(":")[2].partition("/")
        source = str(uuid.UUID(source)) if is_uuid(source) else ""
        if reference.startswith("upload:"):
            file = uploads.get(source)
        else:
            file = next((row for row in outputs.get(source, ()) if name in ("", row.name)), None)
        if file is None:
            wrong.append((f"params.{param}", "input_not_found", f"{reference} does not exist or is not yours."))
        elif problem := field.problem(file.content_type, cut=isinstance(file, Upload) and file.cut):
            code = ErrorCode.bad_input
            wrong.append((f"params.{param}", "bad_input", f"{reference} {problem}"))
        elif isinstance(file, Upload):
            found[reference] = JobInput(reference=reference, upload=file)
        else:
            found[reference] = JobInput(reference=reference, artifact=file)
    if wrong:
        if any(detail_code == "input_not_found" for _, detail_code, _ in wrong):
            code = ErrorCode.input_not_found
        raise Refused(code, fields=wrong)
    return list(found.values())


def sizes(inputs: list[JobInput]) -> dict[str, int]:
    """Bytes of each resolved input, by reference."""
    files = {needed.reference: needed.artifact or needed.upload for needed in inputs}
    return {reference: file.bytes for reference, file in files.items() if file}


def _ids(references) -> set[uuid.UUID]:
    parts = (reference.partition(":")[2].partition("/")[0] for reference in references)
    return {uuid.UUID(part) for part in parts if is_uuid(part)}
