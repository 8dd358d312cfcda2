"""Tables of a race: whole suites, and what each test costs beyond its body. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.contestants import KINDS, LIMIT, NO_DATABASE, ONE_LOOP, RECIPE, THIS, Contestant, Kind
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
    notes = [
        f"Milliseconds. 'test': from the end of one to the end of the next, over the tests after the first "
        f"{results.first_tests} of {results.tests}. 'fixtures': the part of it that is set-up and tear-down. 'body': "
        "the same body on an open, warm session, repeated in one test. 'overhead': the test without that body: "
        "fixtures, and what the body takes longer because its session is new and its code was not used a moment ago. "
        f"'fixtures' and 'overhead' without what '{NO_DATABASE.name}' takes, which is pytest's own.",
        f"'{ONE_LOOP.name}' is how the README sets a project up; else each test has a loop and a connection.",
        *filter(None, (_sync_goal(results), _async_goal(results, THIS), _async_goal(results, ONE_LOOP))),
    ]
    return Table(
        "What each test costs",
        (
            "contestant",
            *[f"{kind}, {part}" for kind in ("sync", "async") for part in ("test", "fixtures", "body", "overhead")],
            "both drivers",
        ),
        rows,
        tuple(notes),
    )


def _sync_goal(results: Results) -> str:
    beyond = [
        _milliseconds([a - b for a, b in zip(of(THIS, "sync"), of(LIMIT, "sync"), strict=False)])
        for of in (results.around, results.overheads)
    ]
    return f"A sync test of {THIS.name} above {LIMIT.name}: fixtures {beyond[0]} ms, overhead {beyond[1]} ms."


def _async_goal(results: Results, contestant: Contestant) -> str:
    less = [
        Figure.ratio(of(RECIPE, "async"), of(contestant, "async")).text(1)
        for of in (results.around, results.overheads)
        if of(RECIPE, "async") and of(contestant, "async")
    ]
    if not less:
        return ""
    return (
        f"An async test of {contestant.name} against {RECIPE.name}: fixtures {less[0]} times less, "
        f"overhead {less[1]} times less."
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
        cells.append(_milliseconds(results.each(contestant, kind) if valid else []))
        if kind != "both":
            cells.append("-" if contestant is NO_DATABASE else _milliseconds(results.around(contestant, kind)))
            cells.append(_milliseconds(results.bodies.get((contestant.name, kind), [])))
            cells.append("-" if contestant is NO_DATABASE else _milliseconds(results.overheads(contestant, kind)))
    return (contestant.name, *cells)


def _milliseconds(seconds: Sequence[float]) -> str:
    return Figure.of(seconds).scaled(1e3).text() if seconds else "-"


def _count(size: int) -> str:
    return "1 test" if size == 1 else f"{size} tests"
