"""What the benchmarks compute and print from the times they see."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.contestants import CONTESTANTS, KINDS, LIMIT, NO_DATABASE, RECIPE, THIS, Kind
from benchmarks.document import chart_of, write
from benchmarks.plot import as_svg
from benchmarks.race import Results
from benchmarks.stats import Figure
from benchmarks.suite import Outcome
from benchmarks.suites import overhead_table, suite_tables
from benchmarks.tables import Table, as_markdown, as_text


def outcome(each: float, *, tests: int = 10, ran: int | None = None, start: float = 1.0, end: float = 0.5) -> Outcome:
    """Return the outcome of a suite whose first test is finished at *start* and every other one *each* later."""
    finished = tuple(start + number * each for number in range(ran or tests))
    around = tuple(each / 2 for _ in finished)
    return Outcome(tests, finished[-1] + end, finished, len(finished), peak_mib=50.0, around=around)


@pytest.fixture
def results() -> Results:
    """Two rounds of three contestants with sync suites; the recipe fails those of both drivers."""
    results = Results(10, [THIS, LIMIT, RECIPE])
    results.outcomes = {
        (THIS.name, "sync"): [outcome(0.02), outcome(0.04)],
        (LIMIT.name, "sync"): [outcome(0.01), outcome(0.02)],
        (RECIPE.name, "sync"): [outcome(0.2), outcome(0.2)],
        (THIS.name, "both"): [outcome(0.02)],
        (RECIPE.name, "both"): [Outcome(10, 2.0, (1.0,), 0, 1, "no row | found")],
    }
    results.absent = {(LIMIT.name, "both"): "has one connection"}
    return results


def test_figure_of_pairs() -> None:
    """Ratios and differences are taken pair by pair, and a value without a partner is left out."""
    ratio = Figure.ratio([2.0, 9.0, 100.0], [1.0, 3.0])
    difference = Figure.difference([2.0, 9.0], [1.0, 3.0])

    assert ratio == Figure(2.5, 2.0, 3.0)
    assert difference == Figure(3.5, 1.0, 6.0)


def test_figure_text() -> None:
    """A figure shows its spread, and none where there is none."""
    assert Figure(1.5, 1.25, 2.0).text() == "1.50 (1.25 to 2.00)"
    assert Figure.of([0.0015]).scaled(1000).text(1) == "1.5"


def test_time_of_a_part() -> None:
    """The first tests of a suite take until they are finished, and the end of the process."""
    assert outcome(0.1).seconds_of(1) == pytest.approx(1.5)
    assert outcome(0.1).seconds_of(10) == pytest.approx(2.4)


def test_time_beyond_what_ran() -> None:
    """Tests that did not run any more are taken to last as long as those that did."""
    stopped = outcome(0.1, tests=100, ran=5)

    assert not stopped.is_complete
    assert stopped.seconds_of(100) == pytest.approx(1.5 + 99 * 0.1)


def test_time_of_each_test() -> None:
    """The time of one test leaves the first ones out, and half of the tests where few ran."""
    finished = (1.0, 3.0, 3.1, 3.2)

    assert Outcome(4, 4.0, finished).seconds_each(skip=2) == pytest.approx(0.1)
    assert Outcome(4, 4.0, finished).seconds_each(skip=100) == pytest.approx(0.1)
    assert Outcome(1, 4.0, (1.0,)).seconds_each(skip=1) == pytest.approx(1.0)


@pytest.fixture
def with_bodies(results: Results) -> Results:
    """The same, with the suite that has no database, and with what the bodies take on an open session."""
    results.outcomes[NO_DATABASE.name, "sync"] = [outcome(0.004), outcome(0.006)]
    results.bodies = {
        (THIS.name, "sync"): [0.005, 0.006],
        (LIMIT.name, "sync"): [0.003, 0.005],
        (RECIPE.name, "sync"): [0.003, 0.005],
        (NO_DATABASE.name, "sync"): [0.001, 0.001],
    }
    return results


def test_overhead_leaves_out_body_and_pytest(with_bodies: Results) -> None:
    """The overhead of a test is neither its body on a warm session nor what pytest takes, round by round."""
    assert with_bodies.overheads(THIS, "sync") == pytest.approx([0.02 - 0.005 - 0.003, 0.04 - 0.006 - 0.005])


def test_fixtures_leave_out_pytest(with_bodies: Results) -> None:
    """Set-up and tear-down are those of a test beyond those of the same test without a database, round by round."""
    assert with_bodies.around(THIS, "sync") == pytest.approx([0.01 - 0.002, 0.02 - 0.003])


def test_table_of_costs_compares(with_bodies: Results) -> None:
    """The table of costs says how far chatdify-db is from the limit, and how far below the recipe."""
    with_bodies.outcomes |= {(each.name, "async"): with_bodies.of(each, "sync") for each in (THIS, RECIPE, NO_DATABASE)}
    with_bodies.bodies |= {(each.name, "async"): [0.003, 0.005] for each in (THIS, RECIPE, NO_DATABASE)}

    notes = overhead_table(with_bodies).notes

    assert notes[2:] == (
        "A sync test of chatdify-db above BEGIN/ROLLBACK by hand, open connection: "
        "fixtures 7.50 (5.00 to 10.00) ms, overhead 13.50 (8.00 to 19.00) ms.",
        "An async test of chatdify-db against SQLAlchemy's recipe: fixtures 9.0 (5.7 to 12.2) times less, "
        "overhead 9.0 (5.7 to 12.3) times less.",
    )


def test_invalid_results_give_no_figures(results: Results) -> None:
    """A contestant that fails a suite or did not run it has no figure there, and the reason is known."""
    assert results.relative(RECIPE, "both") is None
    assert results.overheads(THIS, "sync") == results.around(THIS, "sync") == []
    assert results.why_not(RECIPE, "both") == "fails: no row | found"
    assert results.why_not(LIMIT, "both") == "has one connection"
    assert results.fails(RECIPE)
    assert not results.fails(THIS)


def test_tables_say_who_is_faster(results: Results) -> None:
    """The table of a suite names those that are faster than chatdify-db."""
    sync, both = suite_tables(results)

    assert sync.notes[-1].startswith(f"Faster than chatdify-db here: {LIMIT.name} (0.9")
    assert RECIPE.name not in sync.notes[-1]
    assert both.notes[-1] == "Faster than chatdify-db here: nobody."


def test_tables_mark_extrapolation(results: Results) -> None:
    """A time that was not waited for is marked."""
    results.outcomes[RECIPE.name, "sync"] = [outcome(1.0, ran=4)]

    row = suite_tables(results)[0].rows[2]

    assert row[1:3] == ("1.50", "~10.50")


def test_every_contestant_has_a_row(results: Results) -> None:
    """Who could not run, or failed, stands in each table with the reason."""
    rows = {row[0]: row for row in suite_tables(results)[1].rows}

    assert rows[RECIPE.name][-1] == "fails: no row | found"
    assert rows[LIMIT.name][-1] == "has one connection"
    assert [row[0] for row in overhead_table(results).rows] == [THIS.name, LIMIT.name, RECIPE.name]


def test_text_and_markdown() -> None:
    """A table is aligned as text, and a valid table as Markdown whatever its cells hold."""
    table = Table("Title", ("name", "value"), (("a|b", "1.00"), ("longer", "10.00")), ("A note.",))

    assert as_text(table).splitlines() == [
        "Title",
        "=====",
        "name    value",
        "------  -----",
        "a|b      1.00",
        "longer  10.00",
        "",
        "A note.",
    ]
    assert "| a\\|b | 1.00 |" in as_markdown(table)
    assert "| --- | --: |" in as_markdown(table)


def test_chart(results: Results) -> None:
    """The chart is well-formed, names each contestant with a result and draws a bar for each result."""
    root = ET.fromstring(as_svg(chart_of(results)))

    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    bars = [element for element in root.iter("{http://www.w3.org/2000/svg}rect") if element.get("height") == "10"]
    assert {THIS.name, LIMIT.name, RECIPE.name} <= set(texts)
    assert len(bars) == 4
    assert all(0 < float(bar.get("width", "0")) < math.inf for bar in bars)


def test_page(results: Results, tmp_path: Path) -> None:
    """The page holds the machine, the chart and every table."""
    files = write(tmp_path, ["two cores"], suite_tables(results), results)

    page = files[0].read_text()
    assert [file.name for file in files] == ["benchmarks.md", "benchmarks.svg"]
    assert "- two cores" in page
    assert "](benchmarks.svg)" in page
    assert all(f"## {table.title}" in page for table in suite_tables(results))


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_unique(kind: Kind) -> None:
    """No two contestants share a name, and each either runs a suite or says why it cannot."""
    names = [contestant.name for contestant in CONTESTANTS]

    assert len(set(names)) == len(names)
    assert all(
        kind in contestant.cannot or f"test_{kind}.py" in contestant.files.values() for contestant in CONTESTANTS
    )
