"""Files of a folder that the operator keeps for users to name: none outside of it is ever opened (FAULTS S31)."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from jobs.errors import ErrorCode, JobError

CHUNK = 1024 * 1024  # bytes


def leads_out(root: Path, name: str) -> bool:
    """Whether `name`, as far as it exists, is somewhere else once its links are followed."""
    return not Path(os.path.realpath(root / name)).is_relative_to(os.path.realpath(root))


def copy(root: Path, name: str, target: Path, *, most: int, check: Callable[[], None]) -> Path:
    """Copy the file `name` below `root` to `target`, which it returns; links inside of `root` are followed.

    `check` is called for every megabyte and may raise. Raises JobError: bad_input for what leads out of `root`, is no
    plain file or is larger than `most` bytes; input_gone, tried again since it may come yet, if there is none;
    storage_error if it cannot be read.
    """
    try:
        with open(_open(root, name), "rb") as source, open(target, "wb") as local:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise IsADirectoryError  # or a pipe, a socket, a device
            while chunk := source.read(CHUNK):
                local.write(chunk)
                if local.tell() > most:
                    raise JobError(ErrorCode.bad_input, f"{name} is larger than {most} bytes.")
                check()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise JobError(ErrorCode.input_gone, f"There is no file {name}.", retryable=True) from error
    except IsADirectoryError as error:
        raise JobError(ErrorCode.bad_input, f"{name} is not a file.") from error
    except OSError as error:
        raise JobError(ErrorCode.storage_error, f"{name}: {os.strerror(error.errno or 0)}") from error
    return target


def _open(root: Path, name: str) -> int:
    """A descriptor of the file, opened part by part without following links: what is swapped for one now is refused."""
    real, top = Path(os.path.realpath(root / name, strict=True)), os.path.realpath(root)
    if not real.is_relative_to(top):
        raise JobError(ErrorCode.bad_input, f"{name} leads out of the folder that it is to be in.")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a named pipe must not hold us up
    at = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in real.relative_to(top).parts:
        try:
            below = os.open(part, flags, dir_fd=at)
        finally:
            os.close(at)
        at = below
    return at
