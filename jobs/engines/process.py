"""Children: started behind the walls that the host allows, read without blocking, and never left behind.

A child is exec'd through `prlimit … unshare -n … setpriv --no-new-privs --pdeathsig KILL --`, so it keeps the pid that
`Popen` returned, has limits, an empty environment and no network, and dies with the thread that started it. That thread
must therefore be the one that waits: call `run` from the thread that owns the job, never from an executor.

Where the platform runs as root, the child is a user of its own (`own_user`), whose is the work folder meanwhile and
nothing else. `gaps` names what this host does not allow of all this.

Not covered: a parent killed within the ~10 ms before setpriv arms the death signal leaves a child, which the next pool
child to start ends (`own_user.sweep`), or the CPU limit.
"""

import contextlib
import functools
import logging
import os
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from jobs.engines import own_user
from jobs.errors import ErrorCode, JobError

log = logging.getLogger(__name__)

TAIL_LINES = 40
LINE_CHARACTERS = 500
POLL_SECONDS = 0.1  # stop() is asked at least this often
KILL_SECONDS = 5.0  # a killed child that is not gone after this hangs in the kernel (a frozen disk)


@dataclass(frozen=True)
class Limits:
    """What one child may use: wall-clock seconds, address space, size of any file it writes, CPU seconds."""

    seconds: float = 1800.0
    memory_bytes: int = 2 * 1024**3
    file_bytes: int = 8 * 1024**3
    cpu_seconds: int = 7200


@dataclass(frozen=True)
class Walls:
    """The walls that this host allows: which of the tools work, and the names of what is missing.

    `own_user` only where the platform runs as root: "own" (one for each child), "shared" (all are nobody) or "".
    """

    tools: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    own_user: str = ""

    def uid(self) -> int | None:
        """The user that a child of this thread runs as; None: the platform's own."""
        return {"own": own_user.of_this_thread(), "shared": own_user.NOBODY}.get(self.own_user)

    def argv(self, limits: Limits, uid: int | None = None, *, absolute: bool = False) -> list[str]:
        """The words to put before a command so that it runs behind these walls, as that user if one is given.

        `absolute`: it begins where its folder has an absolute name that it can use.
        """
        words = []
        if "prlimit" in self.tools:
            cpu = max(1, int(limits.cpu_seconds))
            words += [*self.tools["prlimit"], f"--as={limits.memory_bytes}", f"--fsize={limits.file_bytes}"]
            words += [f"--cpu={cpu}", "--core=0", "--nofile=256"]  # soft and hard: FFmpeg catches SIGXCPU, not KILL
        if uid is None:
            return [*words, *self.tools.get("unshare", []), *self.tools.get("setpriv", [])]
        if words and own_user.is_own(uid):
            words += [f"--nproc={own_user.PROCESSES}"]
        if "room" in self.tools:
            words += [*self.tools["room"], own_user.ROOM if absolute else "."]
        else:
            words += self.tools.get("unshare", [])
        setpriv, *rest = self.tools["setpriv"]
        return [*words, setpriv, *_as_user(uid), *rest]


def _as_user(uid: int) -> list[str]:
    """For setpriv, in the one call that arms the death signal: a later change of user would disarm it (trap 2)."""
    return [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


@dataclass(frozen=True)
class Finished:
    """How a child ended: its return code (negative: the signal), and the last lines of its stderr, oldest first."""

    returncode: int
    tail: list[str]


class Stopped(Exception):
    """`stop()` said so: the child was killed and reaped. What it wrote is to be thrown away."""


# In a mount namespace: the work folder stands at a second place that is open to all, since the way to its own is closed
# to other users, and the other folders that anybody may write to are read-only. $1 is where to begin.
IN_ROOM = f"""mount --bind . {own_user.ROOM} || exit 71
[ "$1" = . ] || cd "$1" || exit 71
shift
for folder in /tmp /dev/shm /run/lock; do
    [ ! -d $folder ] || [ -L $folder ] || mount -o bind,ro $folder $folder || exit 71
done
exec "$@"
"""


@functools.cache
def walls() -> Walls:
    """What this host allows, found by one trial run of each tool; the first call costs about 30 ms, others nothing."""
    as_root = os.geteuid() == 0
    candidates = {
        "prlimit": ["prlimit"],
        "unshare": ["unshare", "-n"] if as_root else ["unshare", "-c", "-n"],
        "setpriv": ["setpriv", "--no-new-privs", "--pdeathsig", "KILL", "--"],
    }
    trials = {"prlimit": ["--core=0"], "room": ["."]}
    room = {"room": ["unshare", "-n", "-m", "--propagation", "private", "sh", "-c", IN_ROOM, "sh"]} if as_root else {}
    tools = {}
    for name, words in {**candidates, **room}.items():
        path = shutil.which(words[0])
        if path and _succeeds([path, *words[1:], *trials.get(name, []), "/bin/true"]):
            tools[name] = [path, *words[1:]]
    users = {"own": own_user.of_this_thread(), "shared": own_user.NOBODY} if as_root and "setpriv" in tools else {}
    setpriv = tools.get("setpriv", [])
    works = [name for name, uid in users.items() if _succeeds([setpriv[0], *_as_user(uid), *setpriv[1:], "/bin/true"])]
    return Walls(tools, sorted(candidates.keys() - tools.keys()), works[0] if works else "")


def _succeeds(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=10).returncode == 0


def gaps(programs: list[str]) -> list[str]:
    """What is missing of the walls around these programs on this host, a few words each for the operator."""
    found, known = list(walls().missing), walls()
    if os.geteuid() != 0:
        return [*found, "own user (only root can give one)"]
    if not known.own_user:
        return [*found, "own user"]
    if known.own_user == "shared":
        found.append("own user (this host maps few: all are nobody)")
    if "room" not in known.tools:
        found.append("mount namespace (children may write to /tmp; Python has no user of its own)")
    kept = {Path(program).name: own_user.kept_from(program) for program in programs}
    return found + [f"own user for {name} (others may not read {path})" for name, path in kept.items() if path]


def run(
    argv: list[str],
    *,
    cwd: Path,
    limits: Limits,
    on_line: Callable[[str], None] | None = None,
    stop: Callable[[], bool | None] = lambda: False,
    on_start: Callable[[int], None] | None = None,
    env: dict[str, str] | None = None,
    reads: tuple[str, ...] = (),
    line_characters: int = LINE_CHARACTERS,
) -> Finished:
    """Run `argv` in `cwd` behind the walls and wait for it; its process group is gone when this returns or raises.

    As a user of its own it reaches files of `cwd` only by relative names, so `argv`'s are made relative; what is there
    is its to change, and afterwards ours again, except what is no plain file: that is deleted. `reads` are paths
    elsewhere that it needs: if others may not read them, it stays the platform's user.

    `on_line` gets each line of stdout, stderr's last lines come back in `tail`; lines are cut at `line_characters`.
    `on_start` gets the pid. `stop` is asked every 0.1 s: True kills the child and raises Stopped, and whatever it
    raises itself passes through with the child killed. JobError(timeout) after `limits.seconds` or `cpu_seconds`;
    JobError(config_error) if the program cannot be started.
    """
    if shutil.which(argv[0]) is None:  # asked here: behind the walls it would only be a tool's exit code
        raise JobError(ErrorCode.config_error, f"{Path(argv[0]).name} is not a program on this host.")
    before = _cpu_of_children()
    try:
        uid = _user(argv[0], reads, cwd)
        child = subprocess.Popen(
            [
                *walls().argv(limits, uid, absolute=_absolute(argv[0])),
                argv[0],
                *(inside(cwd, word) for word in argv[1:]),
            ],
            cwd=cwd,
            env={"TMPDIR": ".", **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # its own group, so that one killpg reaches all of it
        )
    except OSError as wrong:
        raise JobError(ErrorCode.config_error, f"{Path(argv[0]).name} cannot be started: {wrong.strerror}.") from wrong
    with contextlib.suppress(AttributeError, OSError):  # not on macOS. Its threads do not preempt each other, nor us:
        os.sched_setscheduler(child.pid, os.SCHED_BATCH, os.sched_param(0))  # a film is read with a third less CPU
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        if on_start:
            on_start(child.pid)
        _read(child, _Lines(on_line, line_characters), _Lines(tail.append, line_characters), stop, limits.seconds)
    finally:
        returncode = _end(child, uid, cwd)
    used = _cpu_of_children() - before  # exact, while the kernel counts ticks for its limit: they differ a little
    if returncode == -signal.SIGKILL and used >= 0.7 * limits.cpu_seconds:
        raise JobError(ErrorCode.timeout, "The work needed more processor time than it may use.")
    return Finished(returncode, list(tail))


def _user(program: str, reads: tuple[str, ...], cwd: Path) -> int | None:
    """The user to run `program` as, to whom `cwd` was given; None: the platform's, since no other could read it all."""
    uid = walls().uid()
    nowhere = _absolute(program) and "room" not in walls().tools
    if uid is None or nowhere or any(map(own_user.kept_from, (program, *reads))):
        return None
    try:
        own_user.give(cwd, uid)
    except PermissionError:  # a file system that knows one owner only
        log.warning("%s runs without a user of its own: its work folder cannot be given away", Path(program).name)
        return None
    return uid


def _absolute(program: str) -> bool:
    """Whether a program makes its paths absolute: DuckDB does, FFmpeg does not (and its cwd says whose it is)."""
    return program == sys.executable


def inside(cwd: Path, word: str) -> str:
    """A word of a command line with the path of a file in `cwd` made relative, also after `file:`."""
    for prefix in ("file:", ""):
        if word.startswith(f"{prefix}{cwd}/"):
            return prefix + word.removeprefix(f"{prefix}{cwd}/")
    return word


def _cpu_of_children() -> float:
    """CPU seconds of all children reaped so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Lines:
    """Bytes in, cut lines out; holds no more than one cut line."""

    def __init__(self, take: Callable[[str], None] | None, longest: int):
        self.take, self.longest, self.rest = take, longest, b""

    def feed(self, data: bytes) -> None:
        *lines, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            self.emit(self.rest + line)
            self.rest = b""
        self.rest = (self.rest + rest)[: self.longest]

    def emit(self, line: bytes) -> None:
        if line and self.take:
            self.take(line[: self.longest].decode("utf-8", "replace"))


def _read(child: subprocess.Popen, out: _Lines, err: _Lines, stop: Callable[[], bool | None], seconds: float) -> None:
    """Read both pipes until the child has ended; raises Stopped, JobError(timeout) or what a callback raises."""
    started = time.monotonic()
    asked = 0.0
    with selectors.DefaultSelector() as pipes:
        for pipe, lines in ((child.stdout, out), (child.stderr, err)):
            assert pipe  # both are pipes: `run` asked for them
            os.set_blocking(pipe.fileno(), False)
            pipes.register(pipe, selectors.EVENT_READ, lines)
        while True:
            ended = _has_ended(child.pid)  # asked before reading: what it wrote last is then already in the pipes
            _drain(pipes, 0 if ended else POLL_SECONDS if pipes.get_map() else 0.001, until_empty=ended)
            if ended:
                break
            now = time.monotonic()
            if now - asked >= POLL_SECONDS:
                asked = now
                if stop():
                    raise Stopped
                if now - started > seconds:
                    raise JobError(ErrorCode.timeout, f"The work took longer than {seconds:g} seconds.")
    for lines in (out, err):
        lines.emit(lines.rest)


def _drain(pipes: selectors.BaseSelector, wait: float, *, until_empty: bool) -> None:
    """Feed what is there; `until_empty` reads on, as far as full pipes reach (a grandchild may still write)."""
    if not pipes.get_map():
        time.sleep(wait)
    for _ in range(16 if until_empty else 1):
        ready = pipes.select(wait) if pipes.get_map() else []
        for key, _mask in ready:
            data = os.read(key.fd, 65536)
            key.data.feed(data) if data else pipes.unregister(key.fileobj)
        if not ready:
            break


def _has_ended(pid: int) -> bool:
    """Whether the child has ended; leaves it unreaped, so that its group id cannot be somebody else's yet."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(child: subprocess.Popen, uid: int | None, cwd: Path) -> int:
    """Kill the child's whole group (if it ended by itself: what it left behind) and reap it; of a user of its own, all
    that it left, and take the folder back."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(child.pid, signal.SIGKILL)
    for pipe in (child.stdout, child.stderr):
        if pipe:
            pipe.close()
    try:
        returncode = child.wait(KILL_SECONDS)
        gone = uid is None or not own_user.is_own(uid) or own_user.kill(uid)
    except subprocess.TimeoutExpired:
        returncode, gone = -signal.SIGKILL, False
    if not gone:
        log.error("child %d does not end after KILL: the kernel holds it, most likely a disk that hangs", child.pid)
    elif uid is not None:
        own_user.take(cwd, uid)
    return returncode
