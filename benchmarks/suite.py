"""One run of a contestant's suite: a project laid out, pytest run on it in a process of its own, and what came out."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.contestants import Contestant, Kind
from benchmarks.postgres import Stand
from benchmarks.processes import end_all_with

_HERE: Final = Path(__file__).resolve().parent
_COMMON: Final = {"clock.py": "clock.py", "size.py": "size.py", "stopwatch.py": "stopwatch.py"}
_LOOPS: Final = "asyncio_default_fixture_loop_scope"

#: Seconds after which a run that should have stopped itself is ended.
_GRACE: Final = 90.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of a suite showed.

    Args:
        tests: How many tests it was to run.
        seconds: From the start of the process to its end.
        finished: For each test that ran, seconds from the start of the process until it was finished.
        passed: How many passed.
        failed: How many did not, or failed in their set-up or tear-down.
        reason: Why the first of them failed, or why nothing ran; empty if all is well.
        peak_mib: The peak memory of pytest's process and its children together, servers aside.
        around: For each test that ran, seconds of its set-up and tear-down, by pytest's own clock.
        body: Seconds that the body of a test takes on an open, warm session, where that was measured.
    """

    tests: int
    seconds: float
    finished: tuple[float, ...] = ()
    passed: int = 0
    failed: int = 0
    reason: str = ""
    peak_mib: float = 0.0
    around: tuple[float, ...] = ()
    body: float | None = None

    @property
    def is_valid(self) -> bool:
        """Whether tests ran and all of them passed."""
        return not self.reason and not self.failed and self.passed > 0

    @property
    def is_complete(self) -> bool:
        """Whether every test ran, and the time was not used up before."""
        return len(self.finished) >= self.tests

    def seconds_each(self, skip: int) -> float:
        """Return the time from the end of one test to the end of the next, on average after the first *skip*.

        The first tests are left out because they warm caches; a run of less than twice as many leaves out half.
        """
        first = min(skip, max(len(self.finished) // 2, 1)) - 1
        if len(self.finished) < 2:
            return self.finished[0] if self.finished else 0.0
        return (self.finished[-1] - self.finished[first]) / (len(self.finished) - 1 - first)

    def seconds_around(self, skip: int) -> float:
        """Return the median time of set-up and tear-down, of the same tests."""
        return statistics.median(self.around[min(skip, len(self.around) // 2) :])

    def seconds_of(self, tests: int) -> float:
        """Return how long the first *tests* of the suite take, ends of the process included.

        Beyond the last one that ran, every test is taken to last as long as those that did.
        """
        end = self.seconds - self.finished[-1]
        if tests <= len(self.finished):
            return self.finished[tests - 1] + end
        return self.seconds + (tests - len(self.finished)) * self.seconds_each(skip=1)


def why_invalid(outcomes: Iterable[Outcome]) -> str:
    """Return why the first of *outcomes* that is not valid is not; empty if all are."""
    return next((f"fails: {outcome.reason}" for outcome in outcomes if not outcome.is_valid), "")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which suites run.

    Args:
        stand: The server for who starts none.
        budget: Seconds after the first test until a run stops; the rest is extrapolated.
        image: The image for who starts a container.
        environment: Variables to set beside the current ones.
        arguments: Further arguments for pytest.
        profile: Where to write a profile of pytest's process; default is not to take one.
    """

    stand: Stand
    budget: float = 5.0
    image: str = "postgres:17-alpine"
    environment: Mapping[str, str] | None = None
    arguments: tuple[str, ...] = ()
    profile: Path | None = None


def run(contestant: Contestant, kinds: tuple[Kind, ...], tests: int, python: Path, conditions: Conditions) -> Outcome:
    """Run the suites *kinds* of *contestant*, with *tests* tests each, by the interpreter *python*."""
    return _run([f"test_{kind}.py::test_{kind}" for kind in kinds], contestant, tests, python, conditions)


def run_warm(contestant: Contestant, kind: Kind, python: Path, conditions: Conditions) -> Outcome:
    """Run the one test of *contestant* that repeats the body of the suite *kind* on an open session."""
    return _run([f"test_{kind}.py::test_warm"], contestant, 1, python, conditions)


def _run(names: list[str], contestant: Contestant, tests: int, python: Path, conditions: Conditions) -> Outcome:
    """Run the tests of those *names*, which have *tests* parameters each."""
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as directory,
        conditions.stand.database("benchmark") as database,
    ):
        project = Path(directory)
        _lay_out(contestant, project)
        address = conditions.stand.tcp.with_database(database)
        variables = {
            "BENCHMARK_URL": address.url(),
            "BENCHMARK_IMAGE": conditions.image,
            "BENCHMARK_BUDGET": str(conditions.budget),
            "BENCHMARK_TESTS": str(tests),
            **(conditions.environment or {}),
        }
        command = [
            str(python),
            *([] if conditions.profile is None else ["-m", "cProfile", "-o", str(conditions.profile)]),
            "-m",
            "pytest",
            "-q",
            *[part for plugin in ("clock", "asyncio", *contestant.plugins) for part in ("-p", plugin)],
            *("-p", "no:cacheprovider"),
            *contestant.arguments,
            *conditions.arguments,
            *names,
        ]
        return _timed(command, project, variables, tests * len(names))


def _lay_out(contestant: Contestant, project: Path) -> None:
    for source, target in {**_COMMON, **contestant.files}.items():
        (project / target).parent.mkdir(exist_ok=True)
        shutil.copy(_HERE / "project" / source, project / target)
    shutil.copy(_HERE / "conftests" / f"with_{contestant.conftest}.py", project / "conftest.py")
    (project / "pytest.ini").write_text(
        "\n".join(["[pytest]", f"{_LOOPS} = {contestant.fixture_loops}", *contestant.ini, ""])
    )


def _timed(command: list[str], project: Path, variables: dict[str, str], tests: int) -> Outcome:
    seen, output = project / "seen.json", project / "output.txt"
    started = time.monotonic()
    variables |= {"BENCHMARK_STARTED": str(started), "BENCHMARK_SEEN": str(seen)}
    with output.open("wb") as out:
        # A file and no pipe: a server that a contestant leaves behind would keep a pipe open.
        process = subprocess.Popen(
            command,
            cwd=project,
            env=_environment(project) | variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            process.wait(_GRACE)
            overdue = ""
        except subprocess.TimeoutExpired:
            overdue = f"did not end within {_GRACE:.0f} s"
    seconds = time.monotonic() - started
    end_all_with("BENCHMARK_SEEN", str(seen))
    process.wait()
    said = output.read_text(errors="replace")
    if overdue or not seen.exists():
        return Outcome(tests, seconds, reason=overdue or _shortened(_lines(said)[-1]))
    record = json.loads(seen.read_text())
    failures = record["failures"] or ([] if record["passed"] else [said])
    return Outcome(
        tests,
        seconds,
        tuple(record["finished"]),
        record["passed"],
        record["failed"],
        _shortened(_lines(failures[0])[0]) if failures else "",
        record["peak_kib"] / 1024,
        tuple(record["around"]),
        record["properties"].get("body"),
    )


def _environment(project: Path) -> dict[str, str]:
    """Return the environment without what would change a run; this project's packages can be imported."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "PYTEST", "CHATDIFY_DB", "COV", "VIRTUAL_ENV")) and name != "DATABASE_URL"
    }
    # Only this interpreter can run this project's plugin, and it finds the rest of what it needs by itself.
    paths = os.pathsep.join([str(project), str(_HERE.parent)])
    return kept | {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": ""}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()] or ["it said nothing"]


def _shortened(text: str, width: int = 110) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


#: The interpreter that runs the command, for contestants that need nothing of their own.
PYTHON: Final = Path(sys.executable)
