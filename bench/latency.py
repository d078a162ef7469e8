"""From submit until the success can be read, on an idle platform: one job at a time, the two sides in turns."""

import time

from bench import Options, Row, median, percentile, turns
from bench.stage import Stage

PAUSE = 0.1  # seconds: the platform is idle again, the gap between two nudges included


def measure(stage: Stage, options: Options) -> list[Row]:
    """p50 over single jobs; p99 is printed beside it."""
    stage.worker()
    stage.peer()
    ours, theirs = stage.client("bench.ours"), stage.client("bench.theirs")

    def once(client):
        def timed() -> float:
            time.sleep(PAUSE)
            return client.ask("once") * 1000

        return timed

    mine, peers = turns(40 if options.quick else 100 * options.rounds, once(ours), once(theirs))
    print(f"latency: p99 {percentile(mine, 99):.1f} ms, peer's {percentile(peers, 99):.1f} ms")
    return [Row("submit → success seen, p50", median(mine), median(peers), "≤ 0.8", "ms")]
