"""The benchmarks, from the command to the page: smallest suites of every contestant that needs nothing of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.contestants import CONTESTANTS

_ROOT = Path(__file__).resolve().parents[2]
_SMALLEST = ("--tests", "2", "--rounds", "1", "--no-peers")


def test_all_sections(tmp_path: Path) -> None:
    """The command measures every contestant of this environment, prints tables, and writes the page and the chart."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *_SMALLEST, "--write-docs", "--docs", str(tmp_path)],
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
    assert all(page.count(f"| {contestant.name} |") >= 4 for contestant in CONTESTANTS)
    assert (tmp_path / "benchmarks.svg").read_text().startswith("<svg")
    failed = [line for line in done.stdout.splitlines() if "fails:" in line]
    assert all("NoResultFound" in line for line in failed), "only who has two transactions may fail, with both drivers"


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
