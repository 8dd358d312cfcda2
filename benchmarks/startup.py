"""How long until the first test is finished, with a server to start, against the same run without a database."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from benchmarks.contestants import NO_DATABASE, RECIPE, THIS, Kind
from benchmarks.stats import Figure
from benchmarks.suite import PYTHON, Conditions, Outcome, run, why_invalid
from benchmarks.tables import Table

_KIND: Final[tuple[Kind, ...]] = ("sync",)
_COLD: Final = f"{THIS.name}, cold cache"
_WARM: Final = f"{THIS.name}, warm cache"
_RUNNING: Final = f"{RECIPE.name}, on a running server"


def table(rounds: int, conditions: Conditions, progress: Callable[[str], None]) -> Table:
    """Run a suite of one test in so many *rounds* with each."""
    outcomes: dict[str, list[Outcome]] = {NO_DATABASE.name: [], _WARM: [], _COLD: [], _RUNNING: []}
    run(THIS, _KIND, 1, PYTHON, conditions)  # fills the caches, and is not counted
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}: first test")
        with tempfile.TemporaryDirectory(prefix="benchmark-cache-") as cache:
            cold = replace(conditions, environment={"XDG_CACHE_HOME": cache})
            outcomes[NO_DATABASE.name].append(run(NO_DATABASE, _KIND, 1, PYTHON, conditions))
            outcomes[_WARM].append(run(THIS, _KIND, 1, PYTHON, conditions))
            outcomes[_COLD].append(run(THIS, _KIND, 1, PYTHON, cold))
            outcomes[_RUNNING].append(run(RECIPE, _KIND, 1, PYTHON, conditions))
    return Table(
        "Until the first test is finished",
        ("run", "seconds", "above no database"),
        tuple(_row(name, outcomes) for name in outcomes),
        (
            "Seconds from the start of the process. A cold cache holds nothing that an earlier run has left, so the "
            "data directory is initialised first. The run without a database imports the same models and no driver.",
        ),
    )


def _row(name: str, outcomes: dict[str, list[Outcome]]) -> tuple[str, ...]:
    reason = why_invalid(outcomes[name])
    if reason:
        return name, "-", reason
    seconds, others = ([one.finished[0] for one in outcomes[key]] for key in (name, NO_DATABASE.name))
    above = "-" if name == NO_DATABASE.name else Figure.difference(seconds, others).text()
    return name, f"{Figure.of(seconds).median:.2f}", above
