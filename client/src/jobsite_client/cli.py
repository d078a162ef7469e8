"""The commands of `jobsite`. What a program reads goes to standard output, what a person reads to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import UUID

import typer

from . import config, show
from .client import VERSION, Options
from .errors import JobUnfinished
from .models import Job
from .sync import Jobsite

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 succeeded, 1 job failed, 2 wrong usage or request, 3 job cancelled, 4 time is up, 5 no "
    "answer, or the platform's trouble, 6 refused (key, tokens, rights, state), 7 a file could not be read, written or "
    "checked.",
)

Url = Annotated[str | None, typer.Option("--url", help="The platform's address; else JOBSITE_URL, else from login.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
JobId = Annotated[UUID, typer.Argument(metavar="JOB", help="The job's id.")]
Kind = Annotated[str, typer.Argument(help="RENDER, STITCH, …; small letters do, too.")]
Param = Annotated[
    list[str],
    typer.Option(
        "--param",
        "-p",
        metavar="NAME=VALUE",
        help="A parameter: JSON where it is JSON, else text; @FILE uploads the file. Twice the same name makes a list.",
    ),
]
Meta = Annotated[
    list[str],
    typer.Option("--meta", metavar="NAME=VALUE", help="Your own text, which comes back; list finds meta.NAME:VALUE."),
]
ParamFile = Annotated[Path | None, typer.Option("--params", help="A JSON file with all parameters; - is stdin.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds to wait; the job goes on after them.")]
Deadline = Annotated[
    int | None, typer.Option("--deadline", help="Seconds after which the job is cancelled if it has not ended.")
]
Out = Annotated[
    Path | None, typer.Option("--output", "-o", help="Where to put the output: a file, or a folder for all of them.")
]


def say(text: str) -> None:
    """To the person, not to the pipe."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the terminal is this program's face


def put(text: str) -> None:
    """To whoever reads the output."""
    print(text, flush=True)  # noqa: T201


def put_json(value: Any) -> None:
    put(json.dumps(value, ensure_ascii=False))


def wrong(text: str) -> NoReturn:
    """End as for wrong usage."""
    raise typer.BadParameter(text)


def opened(url: str | None) -> Jobsite:
    """The client; ends as for wrong usage when there is no address or key."""
    try:
        return Jobsite(url)
    except ValueError as error:
        wrong(str(error))


def pairs(given: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and value of each NAME=VALUE; ends as for wrong usage at what is none."""
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            wrong(f"{text!r} is not NAME=VALUE.")
        yield name, value


def wanted(jobs: Jobsite, given: Iterable[str], file: Path | None) -> dict[str, Any]:
    """The params that are meant; files are uploaded."""
    params: dict[str, Any] = {}
    if file:
        try:
            params = json.loads(sys.stdin.read() if str(file) == "-" else file.read_text())
        except ValueError:
            wrong(f"{file} is not JSON.")
        if not isinstance(params, dict):
            wrong(f"{file} is not a JSON object.")
    named: dict[str, list[Any]] = {}
    for name, value in pairs(given):
        named.setdefault(name, []).append(_value(jobs, value))
    return params | {name: values[0] if len(values) == 1 else values for name, values in named.items()}


def _value(jobs: Jobsite, text: str) -> Any:
    if text.startswith("@"):
        path = Path(text[1:])
        with show.transfer(path.name, upload=True) as progress:
            return jobs.upload(path, progress=progress).reference
    try:
        return json.loads(text)
    except ValueError:
        return text


def fetch(jobs: Jobsite, job: Job, to: Path) -> list[Path]:
    """Download the outputs: one into the file `to`, or all into the folder `to`."""
    if len(job.outputs) > 1 and not to.is_dir():
        names = ", ".join(one.name for one in job.outputs)
        wrong(f"The job has {len(job.outputs)} outputs ({names}): name a folder, or one with --name.")
    paths = []
    for output in job.outputs:
        with show.transfer(output.name, upload=False) as progress:
            paths.append(jobs.download(output, to, progress=progress))
    return paths


@app.command()
def run(
    kind: Kind,
    param: Param = [],  # noqa: B006 - read only
    params: ParamFile = None,
    meta: Meta = [],  # noqa: B006
    deadline: Deadline = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    output: Out = None,
    timeout: Timeout = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Submit a job, wait for it, fetch what it made. Ctrl-C cancels it."""
    with opened(url) as jobs:
        given = wanted(jobs, param, params)
        options: Options = {"metadata": dict(pairs(meta)), "deadline_seconds": deadline}
        if not wait:
            _told(jobs.submit(kind.upper(), given, **options), as_json=as_json)
            return
        try:
            with show.job() as update:
                job = jobs.run(kind.upper(), given, timeout=timeout, on_update=update, **options)
        except KeyboardInterrupt as interrupt:
            say("\n".join(getattr(interrupt, "__notes__", [])))
            raise typer.Exit(3) from None
        paths = fetch(jobs, job, output) if output else []
        _told(job, as_json=as_json, paths=paths)


@app.command()
def submit(
    kind: Kind,
    param: Param = [],  # noqa: B006
    params: ParamFile = None,
    meta: Meta = [],  # noqa: B006
    deadline: Deadline = None,
    key: Annotated[str | None, typer.Option("--idempotency-key", help="The same key makes one job.")] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Submit a job and print its id."""
    with opened(url) as jobs:
        given = wanted(jobs, param, params)
        options: Options = {"metadata": dict(pairs(meta)), "deadline_seconds": deadline, "idempotency_key": key}
        _told(jobs.submit(kind.upper(), given, **options), as_json=as_json)


@app.command()
def estimate(
    kind: Kind,
    param: Param = [],  # noqa: B006
    params: ParamFile = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """What a job would cost; nothing is charged."""
    with opened(url) as jobs:
        found = jobs.estimate(kind.upper(), wanted(jobs, param, params))
    if as_json:
        put_json({"kind": found.kind, "cost": found.cost, "params": found.params, "cancel_refund": found.cancel_refund})
    else:
        put(show.tokens(found.cost))


@app.command()
def status(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """How a job stands."""
    with opened(url) as jobs:
        found = jobs.get(str(job))
    put_json(found.raw) if as_json else put(show.block(found))


@app.command("list")
def list_(
    words: Annotated[
        list[str],
        typer.Argument(help="kind:render status:failed code:… id:… meta.x:… after:2026-01-31 before:…; or a job's id"),
    ] = [],  # noqa: B006
    most: Annotated[int, typer.Option("--most", "-n", help="How many to show.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Your jobs, newest first, a line each. All words must hold; the same one twice means either."""
    chosen: dict[str, Any] = {}
    search = []
    for word in words:
        name, _, value = word.partition(":")
        if name in ("after", "before"):
            try:
                chosen[f"created_{name}"] = datetime.fromisoformat(value).astimezone()
            except ValueError:
                wrong(f"{word!r} is not a time like 2026-01-31 or 2026-01-31T18:00.")
        else:
            spaced = name.startswith("meta.") and " " in value  # the shell has taken the quotes
            search.append(f'{name}:"{value}"' if spaced else word)
    chosen["search"] = " ".join(search)
    with opened(url) as jobs:
        for _, found in zip(range(most), jobs.list(**chosen, page=min(100, max(1, most))), strict=False):
            put_json(found.raw) if as_json else put(show.line(found))


@app.command()
def watch(job: JobId, timeout: Timeout = None, as_json: AsJson = False, url: Url = None) -> None:
    """Follow a job until it ends; Ctrl-C stops watching, not the job. With --json a line for each change."""
    with opened(url) as jobs:
        if as_json:
            for update in jobs.stream(str(job), timeout=timeout):
                put_json(update.raw)
        else:
            with show.job() as shown:
                update = jobs.wait(str(job), timeout=timeout, on_update=shown)
            put(show.block(update))
    update.raise_for_outcome()


@app.command()
def explain(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Why a job waits, failed, or costs what it costs."""
    with opened(url) as jobs:
        found = jobs.explain(str(job))
    if as_json:
        put_json(found)
        return
    for text in found["now"]:
        put(show.clean(text))
    for line in [*found["timeline"], *found["money"]]:
        put(show.clean(f"  {line['at'][:19]}  {line['title']}  {line['detail']}".rstrip()))


@app.command()
def logs(
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """What a job's runs said of their work."""
    with opened(url) as jobs:
        for line in jobs.logs(str(job), follow=follow):
            put_json(_plain(line)) if as_json else put(show.clean(f"{line.at[:19]}  {line.attempt}  {line.text}"))


@app.command()
def cancel(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """End a job; its tokens come back by the rule of its kind."""
    with opened(url) as jobs:
        _told(jobs.cancel(str(job)), as_json=as_json)


@app.command()
def retry(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Charge a failed job again and queue it again."""
    with opened(url) as jobs:
        _told(jobs.retry(str(job)), as_json=as_json)


@app.command()
def delete(job: JobId, url: Url = None) -> None:
    """Remove a job and its outputs; a live one is cancelled first."""
    with opened(url) as jobs:
        jobs.delete(str(job))


@app.command()
def download(
    job: JobId,
    output: Out = Path(),
    name: Annotated[str | None, typer.Option("--name", help="Only the output of this name.")] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Fetch what a job made; one that broke off goes on where it was."""
    with opened(url) as jobs:
        found = jobs.get(str(job))
        found.raise_for_outcome()
        if not found.is_final:
            raise JobUnfinished(found)
        if name:
            found = replace(found, outputs=tuple(one for one in found.outputs if one.name == name))
        if not found.outputs:
            wrong("The job has no such output.")
        paths = fetch(jobs, found, output or Path())
    put_json([str(path) for path in paths]) if as_json else put("\n".join(map(str, paths)))


@app.command()
def upload(paths: Annotated[list[Path], typer.Argument()], as_json: AsJson = False, url: Url = None) -> None:
    """Bring files; prints the references that params take."""
    with opened(url) as jobs:
        for path in paths:
            with show.transfer(path.name, upload=True) as progress:
                made = jobs.upload(path, progress=progress)
            put_json(_plain(made)) if as_json else put(made.reference)


@app.command()
def tokens(
    most: Annotated[int, typer.Option("--most", "-n", help="How many lines of the ledger to show.")] = 10,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Your balance, and the last lines of your ledger."""
    with opened(url) as jobs:
        balance = jobs.balance()
        lines = [line for _, line in zip(range(most), jobs.transactions(page=min(100, max(1, most))), strict=False)]
    if as_json:
        put_json({"balance": balance, "transactions": [_plain(line) for line in lines]})
        return
    put(show.tokens(balance))
    for line in lines:
        what = f"{line.kind:<9} {line.reference or line.reason}"
        put(show.clean(f"  {line.created_at:%Y-%m-%d %H:%M}  {line.amount:+8d}  {what}"))


@app.command()
def login(url: Annotated[str | None, typer.Argument(help="The platform's address.")] = None) -> None:
    """Keep an address and a key for later; the key is asked for, and tried."""
    try:
        known = config.find(url).url
        address = url or typer.prompt("Address", default=known or "http://127.0.0.1:8000", err=True)
        key = typer.prompt("Key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
        with Jobsite(address, key) as jobs:
            balance = jobs.balance()
    except ValueError as error:
        wrong(str(error))
    path = config.keep(config.Access(address, key))
    say(f"You have {show.tokens(balance)}. Kept in {path}, for you alone to read.")


@app.command()
def version() -> None:
    """The version of this program."""
    put(VERSION)


def _told(job: Job, *, as_json: bool, paths: Iterable[Path] = ()) -> None:
    """The job as one JSON object, or the shortest thing to go on with: files, else its id."""
    files = [str(path) for path in paths]
    if as_json:
        put_json({**job.raw, "files": files} if files else job.raw)
    else:
        put("\n".join(files) or job.id)
        say(show.line(job))


def _plain(thing: Any) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in vars(thing).items()}
