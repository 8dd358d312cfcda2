"""The results as a page of the documentation, with a chart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.contestants import KINDS
from benchmarks.plot import Chart, as_svg
from benchmarks.race import Results
from benchmarks.stats import Figure
from benchmarks.tables import Table, as_markdown

PAGE: Final = "benchmarks.md"
CHART: Final = "benchmarks.svg"

_INTRODUCTION: Final = """\
# Benchmarks

Written by `python -m benchmarks --write-docs`. Machines are noisy, so trust ratios and differences, which are taken
within one run where the contestants take turns; in brackets are the extremes over the rounds. What each contestant's
user would write is in `benchmarks/conftests/`, the suite in `benchmarks/project/`. All servers run without durability.
"""


def write(directory: Path, machine: Sequence[str], tables: Sequence[Table], results: Results | None) -> list[Path]:
    """Write the page, and the chart if there was a race, into *directory*; return the files."""
    files = [directory / PAGE]
    parts = [_INTRODUCTION, *[f"- {line}" for line in machine], ""]
    if results is not None:
        chart = directory / CHART
        chart.write_text(as_svg(chart_of(results)))
        files.append(chart)
        parts.append(f"![Seconds of a suite of {results.tests} tests by contestant]({CHART})\n")
    parts.append("\n\n".join(as_markdown(table) for table in tables))
    files[0].write_text("\n".join([*parts, ""]))
    return files


def chart_of(results: Results) -> Chart:
    """Return the chart of the whole suites; who has no valid result is left out."""
    groups = {}
    for contestant in results.contestants:
        values = [
            Figure.of(results.seconds(contestant, kind, results.tests)).median
            if results.is_valid(contestant, kind)
            else None
            for kind in KINDS
        ]
        if any(values):
            groups[contestant.name] = values
    return Chart(
        f"A suite of {results.tests} tests", "seconds, whole pytest process", ("psycopg2", "asyncpg", "both"), groups
    )
