"""ANALYZE: what a CSV says: profile, outliers, correlations, charts, and insights that anyone can ask again."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from rest_framework import serializers

from jobs.engines import llm, retry
from jobs.engines.breaker import BreakerOpen
from jobs.errors import ErrorCode, JobError
from jobs.kinds.base import InputField, Kind, Limits, Run, register

log = logging.getLogger(__name__)

UNIT = 10_000_000  # bytes that PRICE_ANALYZE_MB is for
MEMORY = 2 * 1024**3  # bytes of address space of a child: DuckDB reserves more than it uses
MOST_BYTES = 64 * 1024**2  # of facts; a thousand columns have about one megabyte
FALLBACK = "llm_failure_fallback"
PARSED, ANALYSED = 0.5, 0.8  # progress at the end of each stage


@register
class Analyze(Kind):
    """Profile a table. Outputs: `result.json`, `profile.csv` and `chart-1.png` … .

    With a key for a language model its insights come first; where it fails, `issues` says `llm_failure_fallback` and
    the insights by rules stand alone: the job succeeds all the same.
    """

    name = "ANALYZE"
    queue = "cpu"
    limits = Limits(run=settings.JOBSITE["ANALYZE_SECONDS"], stall=120)  # seconds

    class Params(serializers.Serializer):
        file = InputField(accepts=("text/csv",), help_text="A table as CSV.")
        header = serializers.ChoiceField(
            ["auto", "yes", "no"], default="auto", help_text="Does the first row name the columns?"
        )

    def price(self, params: dict[str, Any]) -> int:
        return 0

    def price_of_inputs(self, sizes: dict[str, int]) -> int:
        return settings.JOBSITE["PRICE_ANALYZE_MB"] * -(-sum(sizes.values()) // UNIT)

    def run(self, run: Run) -> None:
        run.progress(0.0, "parsing")
        task = {"file": run.input(run.params["file"]).name, "header": run.params["header"]}
        run.tool("jobs.engines.tables", task, memory_bytes=MEMORY, end=PARSED)
        run.progress(PARSED, "processing")
        idle(run, settings.JOBSITE["SIMULATED_SLOW"])
        files = run.tool("jobs.engines.analysis", {}, memory_bytes=MEMORY, start=PARSED, end=ANALYSED)
        found = answered(run.workdir / files["analysis"])
        ask_model(run, found)
        result = run.workdir / "result.json"
        with open(result, "x") as file:  # not through a link that a child which was taken over has laid there
            json.dump(found, file, allow_nan=False, indent=1)
        run.output(result, result.name, "application/json")
        run.output(run.workdir / files["profile"], files["profile"], "text/csv")
        for name in files["charts"]:
            run.output(run.workdir / name, name, "image/png")


def answered(path: Path) -> dict[str, Any]:
    """The facts that the child left. JobError(processing_error) if they are no file of a sensible size."""
    if path.is_symlink() or path.stat().st_size > MOST_BYTES:
        raise JobError(ErrorCode.processing_error)
    return json.loads(path.read_bytes())


def idle(run: Run, seconds: float) -> None:
    """Do nothing for so long, visibly: for rehearsals of cancel and timeout (SIMULATED_SLOW_PROCESSING_SECONDS)."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        run.alive()
        time.sleep(min(0.1, left))


def ask_model(run: Run, found: dict[str, Any]) -> None:
    """Put the model's insights in front of those by rules, if one is set up; say in `issues` that it failed."""
    own = settings.JOBSITE
    found["model"] = None
    if not own["LLM_KEY"]:
        return
    model = llm.Model(own["LLM_BASE_URL"], own["LLM_MODEL"], own["LLM_KEY"], own["LLM_TIMEOUT_SECONDS"])
    facts = llm.facts_of(found)
    prompt = llm.prompt_of(facts)

    def ask() -> list[dict[str, Any]]:
        run.alive()
        return llm.believed(llm.complete(model, llm.SYSTEM, prompt, check=run.check), facts)

    try:
        told = retry.call(
            lambda: run.breaker("llm").call(ask, on=(llm.Failed,)),
            label=f"LLM call ({model.name})",
            tries=own["LLM_RETRY_ATTEMPTS"],
            on=(llm.Unavailable,),
            initial=own["RETRY_INITIAL_DELAY"],
            factor=own["RETRY_FACTOR"],
            most=own["RETRY_MAX_DELAY"],
            check=run.check,
        )
    except (llm.Failed, BreakerOpen) as error:
        log.warning("Job %s: no insights from %s: %s", run.job_id, model.name, error)
        found["issues"].append(FALLBACK)
        return
    found["model"] = model.name
    found["insights"] = told + found["insights"]
