"""What a statement costs through the sandbox: on a direct connection and through it, taking turns in one run."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from statistics import median

import psycopg2

from benchmarks.operations import OPERATIONS, Operation, enter, take_turn
from benchmarks.postgres import Stand
from benchmarks.sandboxed import Sandboxed, sandboxed
from benchmarks.stats import Figure
from benchmarks.tables import Table
from pytest_chatdify_db.databases.sequences import Baseline
from pytest_chatdify_db.postgres.connection import connect

_SEQUENCES = 100

_NOTES = (
    "Median microseconds of the median of each turn; ratios are taken turn by turn, with their extremes.",
    "'direct' is a TCP connection with a SCRAM password, as applications have; 'unix socket' is the fastest there is, "
    "without a password. The sandbox is reached over its unix socket with a password, as engines in a test process do.",
    "'forwarder' is a process that copies bytes between two unix sockets and does nothing else: what the detour alone "
    "costs on this machine, and what no proxy in Python can be faster than.",
)


def tables(stand: Stand, turns: int) -> list[Table]:
    """Measure every operation in so many *turns*, and the reset between tests."""
    with sandboxed(stand) as setting:
        setting.push()
        rows = [_row(operation, asyncio.run(_measure(operation, setting, turns))) for operation in OPERATIONS]
        setting.pop()
        waited, reset = _measure_reset(setting, turns * 20)
        sequences = _measure_sequences(setting, turns * 20)
    columns = (
        "operation",
        "driver",
        "direct",
        "sandbox",
        "sandbox / direct",
        "sandbox / unix socket",
        "forwarder / direct",
    )
    return [
        Table("Latency through the sandbox", columns, tuple(rows), _NOTES),
        Table(
            "Reset between two tests",
            ("what", "microseconds"),
            (
                ("end of a test with one committed insert, and beginning of the next", waited.scaled(1e6).text(0)),
                ("the same, until a statement that follows at once can run", reset.scaled(1e6).text(0)),
                (f"reset_sequences=True with {_SEQUENCES} sequences", sequences.scaled(1e6).text(0)),
            ),
            (
                "What a test waits for, and a connection for the sequences; median, and the range "
                "without a tenth at either end.",
            ),
        ),
    ]


def _row(operation: Operation, seconds: list[list[float]]) -> tuple[str, ...]:
    direct, local, forwarded, sandbox = seconds
    return (
        operation.name,
        operation.driver,
        f"{median(direct) * 1e6:,.0f}",
        f"{median(sandbox) * 1e6:,.0f}",
        Figure.ratio(sandbox, direct).text(),
        f"{Figure.ratio(sandbox, local).median:.2f}",
        f"{Figure.ratio(forwarded, direct).median:.2f}",
    )


async def _measure(operation: Operation, setting: Sandboxed, turns: int) -> list[list[float]]:
    """Return the seconds of a call in each turn: direct over TCP, over a unix socket, forwarded, sandboxed."""
    addresses = (setting.tcp, setting.local, setting.forwarded, setting.sandbox)
    seconds: list[list[float]] = [[] for _ in addresses]
    async with AsyncExitStack() as stack:
        calls = [await enter(operation, address, stack) for address in addresses]
        for call in calls:
            await take_turn(call, 2)
        for _ in range(turns):
            for times, call in zip(seconds, calls, strict=True):
                times.append(await take_turn(call, operation.calls))
    return seconds


def _measure_reset(setting: Sandboxed, times: int) -> tuple[Figure, Figure]:
    """Return how long the end of a test that wrote and the beginning of the next take, in seconds without extremes.

    Returns:
        What the test run waits for; and with what a statement that follows at once waits longer than one that does not.
    """
    connection = psycopg2.connect(setting.sandbox.url())
    connection.autocommit = True
    cursor = connection.cursor()
    waited, until_statement = [], []
    setting.push()
    for _ in range(times):
        cursor.execute("INSERT INTO item (name, amount) VALUES ('new', 1)")
        cursor.execute("SELECT 1 FROM item LIMIT 1")
        before = time.perf_counter()
        cursor.execute("SELECT 1 FROM item LIMIT 1")
        begun = time.perf_counter()
        setting.pop()
        setting.push()
        ended = time.perf_counter()
        cursor.execute("SELECT 1 FROM item LIMIT 1")
        waited.append(ended - begun)
        until_statement.append(time.perf_counter() - begun - (begun - before))
    connection.close()
    setting.pop()
    return _without_extremes(waited), _without_extremes(until_statement)


def _measure_sequences(setting: Sandboxed, times: int) -> Figure:
    """Return the seconds that it takes to set sequences back of which each was drawn from, without extremes."""
    seconds = []
    setting.push()
    with connect(setting.sandbox) as connection:
        for number in range(_SEQUENCES):
            connection.query(f"CREATE SEQUENCE drawn_{number}")
        baseline = Baseline.read(setting.sandbox)
        for _ in range(times):
            connection.query("SELECT " + ", ".join(f"nextval('drawn_{number}')" for number in range(_SEQUENCES)))
            begun = time.perf_counter()
            baseline.restore(setting.sandbox, has_rows=False)
            seconds.append(time.perf_counter() - begun)
    setting.pop()
    return _without_extremes(seconds)


def _without_extremes(seconds: list[float]) -> Figure:
    seconds.sort()
    return Figure(median(seconds), seconds[len(seconds) // 10], seconds[-1 - len(seconds) // 10])
