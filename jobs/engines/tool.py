"""Python work on user material, done by a child behind the walls: a module is started, told its task, and answers.

Both sides of the line are here. The parent calls `run`; the child's module ends with `if __name__ == "__main__":
tool.main(work)`. The task is one JSON word in argv (it is public: no secrets); on stdout come lines `progress 0.42`,
and at the end one line of JSON, the result or an error. What is large goes into files of the work folder.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.engines import process
from jobs.errors import ErrorCode, JobError

ROOT = Path(__file__).resolve().parents[2]
ANSWER_CHARACTERS = 65536

Progress = Callable[[float], None]


def run(
    module: str,
    task: dict[str, Any],
    *,
    cwd: Path,
    limits: process.Limits,
    on_progress: Progress = lambda fraction: None,
    stop: Callable[[], bool | None] = lambda: False,
    on_start: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """What `module` (a dotted name) answers to `task`; it runs in `cwd` behind the walls and within `limits`.

    A value that is the path of a file in `cwd` arrives as its name. `model` may be the path of one elsewhere: if others
    than its owner may not read it, the child has no user of its own.

    `on_progress` gets fractions, 0.0 to 1.0; `stop` and `on_start` are those of `process.run`. Raises the JobError that
    the child says; out_of_memory if it ran out, processing_error if it died otherwise, timeout past the limits.
    """
    answers: list[dict[str, Any]] = []
    task = {name: process.inside(cwd, value) if isinstance(value, str) else value for name, value in task.items()}

    def heard(line: str) -> None:
        word, _, number = line.partition(" ")
        if word == "progress":
            on_progress(min(1.0, max(0.0, float(number))))
        elif line.startswith("{"):
            answers.append(json.loads(line))

    ended = process.run(
        [sys.executable, "-P", "-m", module, json.dumps(task)],
        cwd=cwd,
        limits=limits,
        on_line=heard,
        stop=stop,
        on_start=on_start,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        reads=(*str(ROOT).split(os.pathsep), *filter(None, [task.get("model")])),
        line_characters=ANSWER_CHARACTERS,
    )
    answer = answers[-1] if answers else {}
    if "error" in answer:
        raise JobError(ErrorCode[answer["error"]], answer["message"])
    if ended.returncode == 0 and "result" in answer:
        return answer["result"]
    words = "".join(ended.tail)
    if "MemoryError" in words or "bad_alloc" in words or "allocate memory" in words:
        raise JobError(ErrorCode.out_of_memory)
    if missing := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", words):
        package = missing[1].partition(".")[0]
        raise JobError(
            ErrorCode.config_error, f"This host lacks {package}: pip install -r requirements-kinds.txt brings it."
        )
    last = re.sub(r"[^ -~]", "", ended.tail[-1])[:200] if ended.tail else f"it ended with {ended.returncode}"
    raise JobError(ErrorCode.processing_error, f"The work on the file failed: {last}")


# --- the child -----------------------------------------------------------------------------------------------------


def main(work: Callable[[dict[str, Any], Progress], dict[str, Any]]) -> None:
    """Do the task in argv and answer; `work` gets it and a function for progress, and may raise JobError."""

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    answer: dict[str, Any]
    try:
        answer = {"result": work(json.loads(sys.argv[1]), lambda fraction: say(f"progress {fraction:.4f}"))}
    except JobError as error:
        answer = {"error": error.code.name, "message": error.message}
    except MemoryError:
        answer = {"error": ErrorCode.out_of_memory.name, "message": ErrorCode.out_of_memory.row.sentence}
    say(json.dumps(answer))
