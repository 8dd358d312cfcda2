"""Two worker processes against one, on the same suite: what pytest-xdist's ``-n 2`` gains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.contestants import KINDS, THIS
from benchmarks.stats import Figure
from benchmarks.suite import PYTHON, Conditions, Outcome, run, why_invalid
from benchmarks.tables import Table


def table(tests: int, rounds: int, conditions: Conditions, progress: Callable[[str], None]) -> Table:
    """Run about so many *tests*, a third of each kind, in so many *rounds* both ways."""
    contestant = replace(THIS, plugins=(*THIS.plugins, "xdist"))
    unlimited = replace(conditions, budget=float("inf"))
    two = replace(unlimited, arguments=("-n", "2"))
    each = max(tests // len(KINDS), 1)
    single: list[Outcome] = []
    double: list[Outcome] = []
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}: one process, two workers")
        single.append(run(contestant, KINDS, each, PYTHON, unlimited))
        double.append(run(contestant, KINDS, each, PYTHON, two))
    title, columns = f"Two workers, {each * len(KINDS)} tests", ("processes", "seconds", "times faster")
    failed = why_invalid([*single, *double])
    if failed:
        return Table(title, columns, (("-", "-", failed),))
    times = Figure.ratio([one.seconds for one in single], [other.seconds for other in double])
    return Table(
        title,
        columns,
        (("1", _median(single), "-"), ("-n 2", _median(double), times.text())),
        ("Whole processes, start of the server and the workers included. It cannot gain where there is one core.",),
    )


def _median(outcomes: list[Outcome]) -> str:
    return f"{Figure.of(outcome.seconds for outcome in outcomes).median:.2f}"
