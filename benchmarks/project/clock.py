"""A pytest plugin that writes down when each test was finished, what came out, and the memory that was used.

Times are seconds since the process was started, by the clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

_STARTED = float(os.environ["BENCHMARK_STARTED"])
_BUDGET = float(os.environ["BENCHMARK_BUDGET"])


class Clock:
    """What was seen so far.

    Args:
        session: The run, which is stopped when its time is used up.
    """

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self.finished: list[float] = []
        self.around: list[float] = []
        self._around = 0.0
        self.passed = 0
        self.failures: list[str] = []
        self.properties: dict[str, object] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test that passed; keep why one failed, and how long set-up and tear-down took."""
        if report.when != "call":
            self._around += report.duration
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.failures.append(str(getattr(crash, "message", report.longreprtext)))
        elif report.when == "call" and report.passed:
            self.passed += 1
            self.properties.update(report.user_properties)

    def pytest_runtest_logfinish(self) -> None:
        """Note the end of a test, and stop the run if its time is used up."""
        now = time.monotonic() - _STARTED
        self.finished.append(now)
        self.around.append(self._around)
        self._around = 0.0
        if now - self.finished[0] > _BUDGET:
            self._session.shouldstop = "the time of the benchmark is used up"

    def pytest_sessionfinish(self) -> None:
        """Write everything down."""
        seen = {
            "finished": self.finished,
            "around": self.around,
            "passed": self.passed,
            "failures": self.failures[:1],
            "failed": len(self.failures),
            "properties": self.properties,
            "peak_kib": sum(_peak_kib(pid) for pid in _family(os.getpid())),
        }
        Path(os.environ["BENCHMARK_SEEN"]).write_text(json.dumps(seen))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin, in the process that sees all tests."""
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(Clock(session), "benchmark_clock")


def _family(pid: int) -> list[int]:
    """Return *pid* and its descendants; *pid* alone where the system does not say."""
    family = [pid]
    for member in family:
        try:
            family += map(int, Path(f"/proc/{member}/task/{member}/children").read_text().split())
        except OSError:
            continue
    return family


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
