"""The second child of an analysis: from the table that the first one left to facts, insights, charts and a CSV.

Run as `python -m jobs.engines.analysis` in the folder of `jobs.engines.tables`. It leaves `analysis.json`, the charts
and `profile.csv`, and answers with their names.
"""

import csv
import json
from pathlib import Path
from typing import Any

from jobs.engines import charts, insights, tables, tool

ANALYSIS, PROFILE = "analysis.json", "profile.csv"
PROFILE_COLUMNS = ("name", "type", "count", "missing", "distinct", "min", "max", "mean", "std")
MOST_PROFILED = 0.7  # progress at the end of the profile


def analyse(table: tables.Table, progress: tool.Progress = lambda fraction: None) -> dict[str, Any]:
    """All that there is to say about the table, as JSON can hold it; its charts are drawn into its folder."""
    found = insights.profile(table, lambda done: progress(MOST_PROFILED * done))
    beyond = insights.outliers(table, found)
    pairs = insights.correlations(table, found)
    progress(0.8)
    moving = insights.trends(table, found)
    progress(0.9)
    return {
        "version": 1,
        "rows": table.rows,
        "dialect": table.dialect,
        "profile": found,
        "outliers": beyond,
        "correlations": pairs,
        "trends": moving,
        "insights": insights.insights(table, found, beyond, pairs, moving),
        "charts": charts.draw(table, found, pairs, moving),
        "issues": table.issues,
    }


def write_profile(path: Path, found: list[insights.Fact]) -> None:
    """The profile as a table for spreadsheets, one line a column of the file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow([*PROFILE_COLUMNS, "most_frequent"])
        for entry in found:
            top = entry["top"][0]["value"] if entry.get("top") else ""
            lines.writerow([harmless(entry.get(name)) for name in PROFILE_COLUMNS] + [harmless(top)])


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets a ' in front (OWASP, CSV
    injection)."""
    return (
        f"'{value}" if isinstance(value, str) and value.lstrip(" ")[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    )


def work(_task: dict[str, Any], progress: tool.Progress) -> dict[str, Any]:
    """The child's: analyse the table in the folder."""
    folder = Path.cwd()
    table = tables.reopened(folder)
    found = analyse(table, progress)
    table.connection.close()
    (folder / ANALYSIS).write_text(json.dumps(found, allow_nan=False))
    write_profile(folder / PROFILE, found["profile"])
    return {"analysis": ANALYSIS, "profile": PROFILE, "charts": [chart["name"] for chart in found["charts"]]}


if __name__ == "__main__":
    tool.main(work)
