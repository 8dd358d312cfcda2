"""Where the time goes: processor time of a round trip in the sandbox, and profiles of its process and of pytest's."""

from __future__ import annotations

import asyncio
import io
import pstats
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from benchmarks.contestants import THIS, Kind
from benchmarks.operations import OPERATIONS, Operation, enter, take_turn
from benchmarks.postgres import Stand
from benchmarks.processes import cpu_seconds
from benchmarks.sandboxed import Sandboxed, sandboxed
from benchmarks.suite import PYTHON, Conditions, run
from benchmarks.tables import Table

_PROFILED = ("SELECT 1, no ORM", "ORM get by primary key, in a transaction", "insert and commit")
_LINES = 30


def table(stand: Stand, calls: int) -> Table:
    """Measure the processor time that so many *calls* of each operation cost the sandbox."""
    with sandboxed(stand) as setting:
        setting.push()
        rows = tuple(_row(operation, setting, calls) for operation in _operations())
        setting.pop()
    return Table(
        "Processor time of the sandbox",
        ("operation", "driver", "sandbox", "test's process"),
        rows,
        (
            "Microseconds of processor time for one call of the operation. They hardly depend on what else the machine "
            "does, unlike the times of a clock.",
        ),
    )


def by_function(stand: Stand, calls: int) -> str:
    """Return a profile of the sandbox under all operations, the functions with the most time of their own first."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        file = Path(directory, "profile")
        with sandboxed(stand, profile=file) as setting:
            setting.push()
            for operation in _operations():
                asyncio.run(_call(operation, setting, calls))
            setting.pop()
        return _statistics(file, "tottime")


def of_tests(stand: Stand, kind: Kind, tests: int) -> str:
    """Return a profile of pytest's process with the plugin over a suite, by time with what a function calls."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        file = Path(directory, "profile")
        conditions = Conditions(stand, budget=float("inf"), profile=file)
        run(THIS, (kind,), tests, PYTHON, conditions)
        return _statistics(file, "cumtime")


def _operations() -> list[Operation]:
    return [operation for operation in OPERATIONS if operation.name in _PROFILED]


async def _call(operation: Operation, setting: Sandboxed, calls: int) -> None:
    async with AsyncExitStack() as stack:
        await take_turn(await enter(operation, setting.sandbox, stack), calls)


def _row(operation: Operation, setting: Sandboxed, calls: int) -> tuple[str, ...]:
    asyncio.run(_call(operation, setting, 3))
    before, own = cpu_seconds(setting.pid), time.process_time()
    asyncio.run(_call(operation, setting, calls))
    after, own = cpu_seconds(setting.pid), time.process_time() - own
    sandbox = "-" if before is None or after is None else f"{(after - before) / calls * 1e6:.0f}"
    return operation.name, operation.driver, sandbox, f"{own / calls * 1e6:.0f}"


def _statistics(file: Path, order: str) -> str:
    out = io.StringIO()
    pstats.Stats(str(file), stream=out).sort_stats(order).print_stats("chatdify_db|app/db", _LINES)
    return out.getvalue()
