"""Files up and down: never whole in memory, checked by their SHA-256, taken up again where they broke off."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from functools import partial
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from .errors import ApiError, ChecksumMismatch, Conflict, ConnectionFailed
from .models import Output, Upload
from .wire import WORTH_ANOTHER_TRY, Wire

PARTS_FROM = 64 * 1024 * 1024  # bytes from which a file goes in parts, where the platform takes them
Progress = Callable[[int, int], None]  # bytes done, bytes in all


class _Read:
    """A part of an open file that tells how far it was read, and takes the SHA-256 on the way."""

    def __init__(self, file: BinaryIO, start: int, size: int, told: Callable[[int], None]):
        self.file, self.start, self.size, self.told = file, start, size, told
        self.digest = hashlib.sha256()
        self.done = 0
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        left = self.size - self.done
        piece = self.file.read(left if size < 0 else min(size, left))
        self.done += len(piece)
        self.digest.update(piece)
        self.told(self.start + self.done)
        return piece

    def tell(self) -> int:
        return self.done

    def seek(self, offset: int, whence: int = 0) -> int:
        """To the beginning or the end: how a length is asked for."""
        self.done = self.size if whence == os.SEEK_END else 0
        self.file.seek(self.start + self.done)
        self.digest = hashlib.sha256()
        return self.done


async def upload(wire: Wire, path: Path, *, name: str = "", progress: Progress | None = None) -> Upload:
    """Bring a file; large ones in parts where the platform has a bucket. ChecksumMismatch if it came otherwise."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size

        def told(done: int) -> None:
            if progress:
                progress(done, size)

        if size >= PARTS_FROM:
            try:
                return await _in_parts(wire, file, size, name or path.name, told)
            except Conflict as refused:
                if refused.code != "multipart_unavailable":
                    raise
        return await _in_one_piece(wire, file, size, name or path.name, told)


async def _in_one_piece(wire: Wire, file: BinaryIO, size: int, name: str, told: Callable[[int], None]) -> Upload:
    read = _Read(file, 0, size, told)

    def body() -> dict[str, Any]:
        nonlocal read
        read = _Read(file, 0, size, told)
        return {"files": {"file": (name, read, "application/octet-stream")}}

    headers = {"Idempotency-Key": str(uuid.uuid4())}
    made = Upload.of(await wire.json("POST", "/api/uploads/", body=body, headers=headers))
    if made.sha256 != read.digest.hexdigest():
        await wire.ask("DELETE", f"/api/uploads/{made.id}/")
        raise ChecksumMismatch(f"{name}: what arrived is not what was sent.")
    return made


async def _in_parts(wire: Wire, file: BinaryIO, size: int, name: str, told: Callable[[int], None]) -> Upload:
    about = {"name": name, "bytes": size}
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    begun = await wire.json("POST", "/api/uploads/multipart/", body=lambda: {"json": about}, headers=headers)
    tags, whole = [], hashlib.sha256()
    for number, address in enumerate(begun["urls"]):
        start = number * begun["part_size"]
        length = min(begun["part_size"], size - start)
        content = await wire.net.apart(partial(_part, file, start, length, whole))
        tags.append(await _put(wire, address, content))
        told(start + length)
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    path = f"/api/uploads/{begun['id']}/complete/"
    made = Upload.of(await wire.json("POST", path, body=lambda: {"json": {"parts": tags}}, headers=headers))
    if made.sha256 != whole.hexdigest():
        await wire.ask("DELETE", f"/api/uploads/{made.id}/")
        raise ChecksumMismatch(f"{name}: what arrived is not what was sent.")
    return made


async def _put(wire: Wire, address: str, content: bytes) -> str:
    answer = await wire.ask("PUT", "", to=address, body=lambda: {"content": content})
    return answer.headers["etag"]


def _part(file: BinaryIO, start: int, length: int, digest: Any) -> bytes:
    file.seek(start)
    content = file.read(length)
    digest.update(content)
    return content


async def download(wire: Wire, output: Output, to: Path, *, progress: Progress | None = None) -> Path:
    """Fetch an output into the file `to`, or under its name into the folder `to`. Returns the file.

    What has come is kept beside it as `.<name>.<hash>.part` until all is there and its SHA-256 is right; a later call
    goes on from there. ChecksumMismatch if it is not right; then the part is gone, and what was at `to` is as it was.
    """
    if to.is_dir():
        to = to / (re.sub(r"[^A-Za-z0-9._-]", "_", output.name).lstrip(".") or "output")
    part = to.with_name(f".{to.name}.{output.sha256[:16]}.part")
    with part.open("a+b") as file:
        try:
            await _fetch(wire, output, file, progress)
        except ChecksumMismatch:
            part.unlink()
            raise
        await wire.net.apart(lambda: os.fsync(file.fileno()))
    part.replace(to)
    return to


async def opened(wire: Wire, output: Output, *, progress: Progress | None = None) -> BufferedRandom:
    """An output as an open file without a name, at its beginning. ChecksumMismatch as for `download`."""
    with ExitStack() as unless_whole:
        file = unless_whole.enter_context(tempfile.TemporaryFile())
        await _fetch(wire, output, file, progress)
        file.seek(0)
        unless_whole.pop_all()
        return file


async def _fetch(wire: Wire, output: Output, file: BufferedRandom, progress: Progress | None) -> None:
    """Write to `file` what it has not got yet of an output. ChecksumMismatch if it is another thing in the end."""
    file.seek(0, os.SEEK_END)
    failures = 0
    while (have := file.tell()) < output.bytes:
        try:
            await _fetch_on(wire, output, file, progress)
        except ConnectionFailed:
            failures = 0 if file.tell() > have else failures + 1
            if failures > wire.retries:
                raise
            await wire.net.sleep(min(30.0, 0.5 * 2**failures))
        except ApiError as refused:
            failures += 1
            if refused.status not in WORTH_ANOTHER_TRY or failures > wire.retries:
                raise
            await wire.net.sleep(refused.retry_after or min(30.0, 0.5 * 2**failures))
    if file.tell() != output.bytes or await wire.net.apart(lambda: _sha256(file)) != output.sha256:
        raise ChecksumMismatch(f"{output.name}: what came is not what the job made.")


async def _fetch_on(wire: Wire, output: Output, file: BufferedRandom, progress: Progress | None) -> None:
    """Write what comes to the end of `file`. ConnectionFailed when the line breaks: what has been written stays."""
    have = file.tell()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    path = f"/api/jobs/{output.job_id}/outputs/{quote(output.name, safe='')}/"
    async with wire.stream(path, headers=headers) as answer:
        if have and answer.status_code != 206:  # it gives the whole
            file.seek(0)
            file.truncate()
        async with aclosing(wire.net.pieces(answer)) as pieces:
            async for piece in pieces:
                await wire.net.apart(partial(file.write, piece))
                if progress:
                    progress(file.tell(), output.bytes)
                if file.tell() > output.bytes:
                    break


def _sha256(file: BufferedRandom) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
