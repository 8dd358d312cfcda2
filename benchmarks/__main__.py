"""The command ``python -m benchmarks``: runs what is asked for, prints tables, writes the page of the documentation.

News goes to the standard error, results to the standard output.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import document, latency, layer, machine, postgres, profiles, startup, suites, workers
from benchmarks.contestants import CONTESTANTS, NO_DATABASE, THIS, Contestant
from benchmarks.environments import Environments
from benchmarks.postgres import Stand
from benchmarks.race import Results, race
from benchmarks.suite import Conditions
from benchmarks.tables import Table, as_markdown, as_text

_SECTIONS: Final = ("latency", "layer", "suites", "startup", "workers", "profile")
_DEFAULT: Final = ("latency", "layer", "suites", "startup", "workers")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to run.

    Args:
        tests: The size of a suite.
        rounds: How many turns each contestant has.
        budget: Seconds after the first test until a run stops and the rest is extrapolated.
        turns: How many turns an operation has.
        worker_tests: The size of the suite for two workers.
    """

    tests: int = 500
    rounds: int = 3
    budget: float = 6.0
    turns: int = 15
    worker_tests: int = 1_000


_IMAGE: Final = "postgres:17-alpine"
_FULL: Final = Effort()
_QUICK: Final = Effort(tests=100, rounds=1, budget=1.0, turns=3, worker_tests=200)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with *arguments*, by default those of the process; return 1 if a suite fails on chatdify-db."""
    options = _parser().parse_args(arguments)
    effort = _QUICK if options.quick else _FULL
    effort = Effort(
        options.tests or effort.tests,
        options.rounds or effort.rounds,
        float("inf") if options.full else effort.budget,
        options.rounds or effort.turns,
        options.tests or effort.worker_tests,
    )
    # Interpreters that must not keep what they compile would start some seconds later than a user's.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with postgres.running() as stand:
        about = machine.describe(stand)
        print("\n".join(about), end="\n\n", flush=True)
        tables, results = _run(options, effort, stand)
    if options.write_docs:
        for file in document.write(options.docs, about, tables, results):
            _progress(f"written: {file}")
    return 1 if results is not None and results.fails(THIS) else 0


def _run(options: argparse.Namespace, effort: Effort, stand: Stand) -> tuple[list[Table], Results | None]:
    conditions = Conditions(stand, effort.budget, options.image)
    tables: list[Table] = []
    results: Results | None = None

    def show(*more: Table) -> None:
        for table in more:
            print(as_markdown(table) if options.markdown else as_text(table), end="\n\n", flush=True)
        tables.extend(more)

    sections = options.sections or _DEFAULT
    if "latency" in sections:
        _progress("latency")
        show(*latency.tables(stand, effort.turns))
    if "layer" in sections:
        _progress("layer")
        show(*layer.tables(stand, effort.turns))
    if "suites" in sections:
        results = race(
            _contestants(options.only),
            tests=effort.tests,
            rounds=effort.rounds,
            environments=Environments(_progress, options.image, with_peers=not options.no_peers),
            conditions=conditions,
            progress=_progress,
        )
        show(*suites.suite_tables(results), suites.overhead_table(results))
    if "startup" in sections:
        show(startup.table(effort.rounds, conditions, _progress))
    if "workers" in sections:
        show(workers.table(effort.worker_tests, max(effort.rounds - 1, 1), conditions, _progress))
    if "profile" in sections:
        show(profiles.table(stand, effort.tests))
        print(profiles.by_function(stand, effort.tests))
        print(profiles.of_tests(stand, "sync", effort.tests))
        print(profiles.of_tests(stand, "async", effort.tests))
    return tables, results


def _contestants(only: Sequence[str]) -> list[Contestant]:
    """Return who takes part: all, or those of *only* and the two that every other one is compared with."""
    measures = THIS, NO_DATABASE
    return [one for one in CONTESTANTS if not only or one in measures or any(part in one.name for part in only)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare chatdify-db with other ways to test on PostgreSQL. Takes 15 minutes; with --quick, two.",
    )
    add = parser.add_argument
    add(
        "sections",
        nargs="*",
        type=_section,
        metavar="SECTION",
        help=f"what to run, of {', '.join(_SECTIONS)} (default: {', '.join(_DEFAULT)})",
    )
    add("--quick", action="store_true", help="smaller suites, one round")
    add(
        "--full",
        action="store_true",
        help="let the slowest contestants finish instead of extrapolating; may take an hour",
    )
    add("--tests", type=_positive, metavar="N", help=f"tests in a suite (default: {_FULL.tests})")
    add("--rounds", type=_positive, metavar="N", help=f"turns of each contestant (default: {_FULL.rounds})")
    add(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help=f"contestants whose name has this in it, beside '{THIS.name}' and '{NO_DATABASE.name}'; may be repeated",
    )
    add("--no-peers", action="store_true", help="make no virtual environments, so leave other projects out")
    add("--image", default=_IMAGE, help="image for contestants that start a container (default: %(default)s)")
    add("--markdown", action="store_true", help="print the tables as Markdown")
    add("--write-docs", action="store_true", help=f"write {document.PAGE} and {document.CHART}")
    add("--docs", type=Path, default=Path("docs"), metavar="DIRECTORY", help="where to (default: %(default)s)")
    return parser


def _section(text: str) -> str:
    if text not in _SECTIONS:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(_SECTIONS)}")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _progress(line: str) -> None:
    print(f"... {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
