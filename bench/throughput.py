"""Durable no-op jobs a second, end to end, two slots: ours with charge, events and settle; the peer's result row."""

import time

from bench import Options, Row, median
from bench.stage import Client, Stage

OURS = "SELECT count(*) FROM jobs_job WHERE kind = 'NOOP' AND status = 'SUCCEEDED'"
THEIRS = "SELECT count(*) FROM django_celery_results_taskresult WHERE status = 'SUCCESS'"
LOOK = 0.02  # seconds between two looks whether all are done
SLOWEST = 20  # jobs a second; a round that is slower hangs


def measure(stage: Stage, options: Options) -> list[Row]:
    """From the first submit until the last job's success is in the database, the two sides in turns."""
    jobs = 300 if options.quick else 3000
    stage.worker()
    stage.peer()
    sides = {"ours": (stage.client("bench.ours"), OURS), "theirs": (stage.client("bench.theirs"), THEIRS)}
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    costs: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for client, count in sides.values():
        one_round(stage, client, count, jobs // 10)
    for number in range(2 if options.quick else options.rounds):
        for side in sorted(sides, reverse=number % 2 == 1):
            processes = [side, "worker" if side == "ours" else "peer", "broker"]
            before = stage.cpu(*processes)
            rates[side].append(jobs / one_round(stage, *sides[side], jobs))
            after = stage.cpu(*processes)
            costs[side].append({name: (after[name] - before[name]) * 1000 / jobs for name in after})
    for side, spent in costs.items():
        parts = {name: median(cost[name] for cost in spent) for name in spent[0]}
        told = ", ".join(f"{'producer' if name == side else name} {cost:.2f}" for name, cost in parts.items())
        speeds = ", ".join(f"{rate:.0f}" for rate in rates[side])
        print(f"throughput, {side}: {speeds} jobs/s; CPU-ms a job: {told}; in all {sum(parts.values()):.2f}")
    return [
        Row("no-op jobs a second, 2 slots", median(rates["ours"]), median(rates["theirs"]), "≥ 1.5, aim 2", "/s"),
    ]


def one_round(stage: Stage, client: Client, count: str, jobs: int) -> float:
    """Seconds from the first submit until all `jobs` have succeeded."""

    def succeeded() -> int:
        return stage.database.execute(count).fetchone()[0]

    wanted = succeeded() + jobs
    began = time.perf_counter()
    client.send("submit", jobs)
    while succeeded() < wanted:
        if time.perf_counter() - began > 10 + jobs / SLOWEST:
            raise TimeoutError(f"{wanted - succeeded()} of {jobs} jobs are not done")
        time.sleep(LOOK)
    took = time.perf_counter() - began
    client.answer()
    return took
