"""The benchmarks, from the command to the page, and every contestant that needs nothing of its own: smallest suites."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import postgres
from benchmarks.__main__ import main
from benchmarks.contestants import CONTESTANTS, KINDS, NO_DATABASE, ONE_LOOP, THIS, Contestant
from benchmarks.postgres import Stand
from benchmarks.suite import PYTHON, Conditions, run

_ROOT = Path(__file__).resolve().parents[2]
_SMALLEST = ("--tests", "2", "--rounds", "1", "--no-peers")


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    """A server for those who start none."""
    with postgres.running() as stand:
        yield stand


_OF_THE_COMMAND = (THIS, NO_DATABASE, ONE_LOOP)


def test_all_sections(tmp_path: Path) -> None:
    """The command measures contestants, prints tables, and writes the page and the chart."""
    only = ("--only", ONE_LOOP.name)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *_SMALLEST, *only, "--write-docs", "--docs", str(tmp_path)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "benchmarks.md").read_text()
    for title in (
        "Latency",
        "Reset",
        "A suite of 2 tests",
        "What each test costs",
        "Until the first test",
        "Two workers",
    ):
        assert title in done.stdout
        assert f"## {title}" in page
    assert all(page.count(f"| {contestant.name} |") >= 4 for contestant in _OF_THE_COMMAND)
    assert (tmp_path / "benchmarks.svg").read_text().startswith("<svg")
    assert "fails:" not in done.stdout


@pytest.mark.parametrize(
    "contestant",
    [one for one in CONTESTANTS if not one.requirements and one not in _OF_THE_COMMAND],
    ids=lambda contestant: str(contestant.name),
)
def test_contestant(contestant: Contestant, stand: Stand) -> None:
    """Each passes its suites and its warm tests; only who has two transactions may fail, with both drivers."""
    warm = tuple(f"test_{kind}.py::test_warm" for kind in ("sync", "async"))

    outcome = run(contestant, KINDS, 2, PYTHON, Conditions(stand, float("inf"), arguments=warm))

    assert outcome.body is not None
    if outcome.failed:
        assert "NoResultFound" in outcome.reason
        assert (outcome.passed, outcome.failed) == (6, 2)
    else:
        assert (outcome.passed, outcome.reason) == (8, "")


def test_profiles(capfd: pytest.CaptureFixture[str]) -> None:
    """The profiles show functions of the sandbox, and of the plugin in pytest's process."""
    code = main(["profile", *_SMALLEST])

    out = capfd.readouterr().out
    assert code == 0
    assert "Processor time of the sandbox" in out
    assert "core.py" in out
    assert "pytest_chatdify_db/lifecycle.py" in out


def test_unknown_section(capsys: pytest.CaptureFixture[str]) -> None:
    """A section that does not exist is refused with the names of those that do."""
    with pytest.raises(SystemExit) as stopped:
        main(["speed"])

    assert stopped.value.code == 2
    assert "'speed' is none of latency, layer, suites, startup, workers, profile" in capsys.readouterr().err
