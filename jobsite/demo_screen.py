"""What the demo shows: steps, sentences and bars that move in a terminal; plain lines anywhere else."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.core.management.base import OutputWrapper

BAR = 24  # characters
COLOURS = {"SUCCEEDED": "32", "FAILED": "31", "CANCELED": "33", "RUNNING": "36"}
Row = tuple[str, str, float, str]  # label, status, progress (0.0 to 1.0), stage


class Screen:
    """Writes to `out`. Moves and colours only where a terminal can (and NO_COLOR does not ask otherwise)."""

    def __init__(self, out: OutputWrapper):
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self.coloured = self.live and "NO_COLOR" not in os.environ
        self.steps = 0

    def step(self, title: str) -> None:
        self.steps += 1
        self.out.write("\n" + self.paint(f"{self.steps}  {title}", "1"))
        self.out.flush()

    def say(self, sentence: str = "") -> None:
        self.out.write(f"   {sentence}".rstrip())
        self.out.flush()

    @contextmanager
    def bars(self) -> Iterator[Callable[[list[Row]], None]]:
        """A function that shows rows: over the last ones in a terminal, else a row at every quarter that it passes."""
        shown: dict[str, tuple[str, int]] = {}
        drawn = 0

        def show(rows: list[Row]) -> None:
            nonlocal drawn
            if self.live:
                up = f"\x1b[{drawn}A" if drawn else ""
                self.out.write(up + "".join(f"\r\x1b[2K{self.line(*row)}\n" for row in rows), ending="")
                drawn = len(rows)
            else:
                for row in rows:
                    label, status, progress, _ = row
                    mark = (status, int(progress * 4))
                    if shown.get(label) != mark:
                        shown[label] = mark
                        self.say(self.line(*row).strip())
            self.out.flush()

        yield show

    def line(self, label: str, status: str, progress: float, stage: str) -> str:
        """One job: as wide as the terminal at most, so that a line stays one line."""
        full = round(BAR * progress)
        bar = "█" * full + "░" * (BAR - full)
        room = max(20, shutil.get_terminal_size((120, 24)).columns - BAR - 21)  # for label and stage
        words = f"{label:42} {stage}" if status == "RUNNING" else label
        words = words if len(words) <= room else words[: room - 1] + "…"
        return f"   {self.paint(f'{status:9}', COLOURS.get(status, '0'))} {bar} {progress:4.0%}  {words}"

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.coloured else text
