"""A user of its own for each child, where the platform runs as root: what takes a child over can read, signal and trace
nothing of the platform's or of another job's, and all that it leaves behind is found by its user.

The user's id is BASE plus the id of the thread that starts the child, which waits for it and starts no second one
meanwhile. There is no entry in /etc/passwd and no group besides.
"""

import functools
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

from .. import procfs

BASE = 1_900_000_000  # above what people, containers (systemd: to 1,879,048,191) and directories hand out
MOST = 4_194_304  # a thread's id on Linux is at most this (PID_MAX_LIMIT)
NOBODY = 65534  # in a container that maps only 65,536 users; shared, so nothing is told from it
PROCESSES = 128 + 16 * (os.cpu_count() or 1)  # and threads, of one user: FFmpeg starts some for each core
ROOM = "/var/tmp"  # noqa: S108 - where a child finds its work folder; what else is there it does not see
KILL_SECONDS = 5.0


def of_this_thread() -> int:
    """The id of the user that a child of this thread runs as."""
    return BASE + threading.get_native_id()


def is_own(uid: int) -> bool:
    """Whether a user id is one of `of_this_thread`, on this host or a former thread's."""
    return BASE < uid <= BASE + MOST


@functools.cache
def kept_from(program: str) -> str:
    """The file or folder that only its owner may read or pass, on the way to a program or file; empty if all is open.

    This Python's libraries and our own modules are part of it. What is not there is not judged.
    """
    needed = [path for path in (shutil.which(program) or program,) if os.path.exists(path)]
    if program == sys.executable:
        needed += [os.__file__, sysconfig.get_path("purelib"), __file__]
    for path in {os.path.abspath(path) for path in needed} | {os.path.realpath(path) for path in needed}:
        mode = os.stat(path).st_mode
        if mode >> 6 & ~mode & (stat.S_IROTH | stat.S_IXOTH):  # the owner may, others may not
            return path
        for folder in map(str, Path(path).parents):
            if not os.stat(folder).st_mode & stat.S_IXOTH or folder == ROOM:
                return folder
    return ""


def give(folder: Path, uid: int) -> None:
    """Make `folder` and the files in it the user's."""
    os.chown(folder, uid, uid)
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            os.chown(entry.path, uid, uid, follow_symlinks=False)


def take(folder: Path, uid: int) -> None:
    """Make `folder` and the files in it ours again; call it once the user has no process left.

    What is no plain file goes: we would follow a link that was planted, wait for a pipe, or write where it leads. So
    does a second name of somebody else's file: `give` would make that the next child's. All are looked at before any is
    changed: a file with two names here changes with the first.
    """
    mine = os.geteuid(), os.getegid()
    if not folder.exists():
        return
    os.chown(folder, *mine)
    for entry, state in [(entry, entry.stat(follow_symlinks=False)) for entry in os.scandir(folder)]:
        if stat.S_ISREG(state.st_mode) and (state.st_uid == uid or state.st_nlink == 1):
            os.chown(entry.path, *mine, follow_symlinks=False)
        elif stat.S_ISDIR(state.st_mode):  # by rm: it was perhaps nested deeper than Python follows
            subprocess.run([shutil.which("rm") or "/bin/rm", "-rf", "--", entry.path], check=False)
        else:
            os.unlink(entry.path)


def kill(uid: int) -> bool:
    """Kill every process of the user. False if one has not gone after 5 s: the kernel holds it.

    By the user's own kill of all that it may signal, which is one step for the kernel: a walk over /proc misses what
    forks and ends on and on.
    """
    argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "sh", "-c", "kill -KILL -1"]
    subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = time.monotonic()
    while any(procfs.owner(pid) == uid and procfs.started(pid) for pid in procfs.pids()):
        if time.monotonic() - began > KILL_SECONDS:
            return False
        time.sleep(0.001)
    return True


def sweep() -> int:
    """Kill what children of killed processes left on this host. Returns of how many users."""
    if os.geteuid() != 0:
        return 0
    owners = {uid for uid in map(procfs.owner, procfs.pids()) if uid is not None and is_own(uid)}
    left = {uid for uid in owners if not os.path.exists(f"/proc/{uid - BASE}")}
    for uid in left:
        kill(uid)
    return len(left)
