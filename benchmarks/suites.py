"""Tables of a race: whole suites, and what each test costs beyond its body. Pure."""

from __future__ import annotations

from typing import Final

from benchmarks.contestants import KINDS, LIMIT, NO_DATABASE, RECIPE, THIS, Contestant, Kind
from benchmarks.race import Results
from benchmarks.stats import Figure
from benchmarks.tables import Table

_WHAT: Final[dict[Kind, str]] = {
    "sync": "psycopg2 alone",
    "async": "asyncpg alone",
    "both": "asyncpg and psycopg2 in one test",
}


def suite_tables(results: Results) -> list[Table]:
    """Return the tables of whole suites, one for each kind that was run."""
    ran = {kind for _, kind in results.outcomes}
    return [_suite_table(results, kind) for kind in KINDS if kind in ran]


def overhead_table(results: Results) -> Table:
    """Return what a test costs by itself and beyond its body."""
    rows = tuple(_overhead_row(results, contestant) for contestant in results.contestants)
    first = results.first_tests
    notes = [
        f"Milliseconds from the end of one test to the end of the next, over the tests after the first {first} of "
        f"{results.tests}. 'beyond' is the difference from {LIMIT.name} in the same round, that is everything but the "
        "same body on an open, warm session.",
    ]
    ours, recipe = results.overhead(THIS, "async"), results.overhead(RECIPE, "async")
    if ours and recipe and ours.median > 0:
        notes.append(
            f"Beyond an async test's body: {RECIPE.name} {recipe.median * 1e3:.2f} ms, {THIS.name} "
            f"{ours.median * 1e3:.2f} ms, {recipe.median / ours.median:.1f} times less."
        )
    return Table(
        "What each test costs",
        ("contestant", "sync", "sync, beyond", "async", "async, beyond", "both drivers"),
        rows,
        tuple(notes),
    )


def _suite_table(results: Results, kind: Kind) -> Table:
    sizes = sorted({min(size, results.tests) for size in (1, 100, results.tests)})
    rows = tuple(_suite_row(results, contestant, kind, sizes) for contestant in results.contestants)
    notes = [
        "Seconds of the whole pytest process. Contestants that start no server use one that is running already; "
        f"{THIS.name} starts its own each time, and that is part of its figures. A '~' was extrapolated from the tests "
        "that ran before the time was up. One run gives all sizes: the time until so many tests were finished, and the "
        "end of the process.",
        _who_is_faster(results, kind),
    ]
    return Table(
        f"A suite of {results.tests} tests, {_WHAT[kind]}",
        ("contestant", *[_count(size) for size in sizes], f"times {THIS.name}", "peak MiB", "tests"),
        rows,
        tuple(notes),
    )


def _suite_row(results: Results, contestant: Contestant, kind: Kind, sizes: list[int]) -> tuple[str, ...]:
    if not results.is_valid(contestant, kind):
        return (contestant.name, *["-"] * (len(sizes) + 2), results.why_not(contestant, kind))
    outcomes = results.of(contestant, kind)
    ran = min(len(outcome.finished) for outcome in outcomes)
    times = [
        f"{'' if size <= ran else '~'}{Figure.of(results.seconds(contestant, kind, size)).median:.2f}" for size in sizes
    ]
    relative = results.relative(contestant, kind)
    peak = max(outcome.peak_mib for outcome in outcomes)
    return (contestant.name, *times, relative.text() if relative else "-", f"{peak:.0f}", "pass")


def _who_is_faster(results: Results, kind: Kind) -> str:
    faster = []
    for contestant in results.contestants:
        relative = results.relative(contestant, kind)
        if relative and relative.median < 1 and contestant is not NO_DATABASE and contestant is not THIS:
            faster.append(f"{contestant.name} ({relative.median:.2f} of its time)")
    return f"Faster than {THIS.name} here: {', '.join(faster) or 'nobody'}."


def _overhead_row(results: Results, contestant: Contestant) -> tuple[str, ...]:
    cells = []
    for kind in KINDS:
        valid = results.is_valid(contestant, kind)
        cells.append(_milliseconds(Figure.of(results.each(contestant, kind)) if valid else None))
        if kind != "both":
            cells.append("-" if contestant.is_yardstick else _milliseconds(results.overhead(contestant, kind)))
    return (contestant.name, *cells)


def _milliseconds(figure: Figure | None) -> str:
    return figure.scaled(1e3).text() if figure else "-"


def _count(size: int) -> str:
    return "1 test" if size == 1 else f"{size} tests"
