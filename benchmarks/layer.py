"""What the production layer costs: its sessions against the same work written by hand on stock engines, and its import.

Run alone: ``python -m benchmarks.layer``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Final

from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from benchmarks import postgres
from benchmarks.postgres import Stand
from benchmarks.stats import Figure
from benchmarks.tables import Table, as_text
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect

_CALLS: Final = 100
_READ: Final = text("SELECT name FROM item WHERE id = 5")
_WRITE: Final = text("UPDATE item SET amount = amount + 1 WHERE id = 5")
_TABLES: Final = "CREATE TABLE item (id serial PRIMARY KEY, name text, amount int); INSERT INTO item VALUES (5, 'x', 1)"
_IMPORT: Final = (
    "import sys, time; before = set(sys.modules); begun = time.perf_counter(); import app.db; "
    "print(time.perf_counter() - begun, sum('.' not in name for name in set(sys.modules) - before))"
)
# What the layer's engines are made with, for those made by hand.
_POOL: Final = {"pool_size": 10, "max_overflow": 20, "pool_recycle": 1800, "pool_pre_ping": True}

AsyncCall = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One piece of work, done through the layer and by hand.

    Args:
        name: What the table calls it.
        layer: Seconds of a call through the layer, turn by turn.
        by_hand: The same by hand.
    """

    name: str
    layer: list[float]
    by_hand: list[float]

    @property
    def row(self) -> tuple[str, ...]:
        """Its row of the table."""
        return (
            self.name,
            f"{median(self.by_hand) * 1e6:,.0f}",
            f"{median(self.layer) * 1e6:,.0f}",
            Figure.ratio(self.layer, self.by_hand).text(),
        )


def tables(stand: Stand, turns: int) -> list[Table]:
    """Measure sessions in so many *turns*, and the import of ``app.db``."""
    with stand.database("benchmark_layer") as name:
        address = stand.tcp.with_database(name)
        with connect(stand.local.with_database(name)) as connection:
            connection.query(_TABLES)
        with _layer_on(address):
            rows = [one.row for one in (*asyncio.run(_async(address, turns)), *_sync(address, turns))]
    imports = [_measure_import() for _ in range(turns)]
    seconds = Figure.of(seconds for seconds, _ in imports)
    return [
        Table(
            "Sessions of the production layer",
            ("session, statement, commit, close", "by hand", "layer", "layer / by hand"),
            tuple(rows),
            (
                "Microseconds of the fastest call of a turn, median of the turns; "
                "ratios are taken turn by turn, with their extremes.",
                "By hand: 'async with AsyncSession(engine) as session, session.begin():' on a stock engine "
                "with the same pool.",
            ),
        ),
        Table(
            "Import of app.db",
            ("what", "value"),
            (
                (
                    "milliseconds in a fresh interpreter",
                    seconds.scaled(1e3).text(1),
                ),
                ("top-level modules it loads", str(imports[0][1])),
            ),
        ),
    ]


@contextmanager
def _layer_on(address: Address) -> Iterator[None]:
    """Let the layer's engines, which are made once in a process, lead to *address*."""
    from app.config import get_settings
    from app.db import engines

    before = os.environ.get("DATABASE_URL")
    os.environ["DATABASE_URL"] = address.url("postgresql")
    get_settings.cache_clear()
    try:
        yield
    finally:
        engines.sync_engine().dispose()
        del os.environ["DATABASE_URL"]
        if before is not None:
            os.environ["DATABASE_URL"] = before
        get_settings.cache_clear()


async def _async(address: Address, turns: int) -> list[Comparison]:
    from app.db import dispose_engines, get_session

    request = asynccontextmanager(get_session)
    engine = create_async_engine(address.url("postgresql+asyncpg"), **_POOL)
    comparisons = []
    for name, statement in (("asyncpg: read", _READ), ("asyncpg: write", _WRITE)):

        async def layer() -> None:
            async with request() as session:
                await session.execute(statement)  # noqa: B023 - called in this turn of the loop

        async def by_hand() -> None:
            async with AsyncSession(engine) as session, session.begin():
                await session.execute(statement)  # noqa: B023 - called in this turn of the loop

        await layer()
        await by_hand()
        turn = [await _pairs_async(layer, by_hand) for _ in range(turns)]
        comparisons.append(Comparison(name, *map(list, zip(*turn, strict=True))))
    await engine.dispose()
    await dispose_engines()
    return comparisons


def _sync(address: Address, turns: int) -> list[Comparison]:
    from app.db import get_sync_session

    engine = create_engine(address.url("postgresql+psycopg2"), **_POOL)
    comparisons = []
    for name, statement in (("psycopg2: read", _READ), ("psycopg2: write", _WRITE)):

        def layer() -> None:
            with get_sync_session() as session:
                session.execute(statement)  # noqa: B023 - called in this turn of the loop

        def by_hand() -> None:
            with Session(engine) as session, session.begin():
                session.execute(statement)  # noqa: B023 - called in this turn of the loop

        layer()
        by_hand()
        turn = [_pairs(layer, by_hand) for _ in range(turns)]
        comparisons.append(Comparison(name, *map(list, zip(*turn, strict=True))))
    engine.dispose()
    return comparisons


async def _pairs_async(*calls: AsyncCall) -> list[float]:
    """Return the seconds that each of *calls*, which take turns call by call, takes at best.

    What else a machine does only ever adds to it.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(_CALLS):
        for call, own in zip(calls, times, strict=True):
            begun = time.perf_counter()
            await call()
            own.append(time.perf_counter() - begun)
    return [min(own) for own in times]


def _pairs(*calls: Callable[[], None]) -> list[float]:
    """Return what ``_pairs_async`` does, for calls that are not awaited."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(_CALLS):
        for call, own in zip(calls, times, strict=True):
            begun = time.perf_counter()
            call()
            own.append(time.perf_counter() - begun)
    return [min(own) for own in times]


def _measure_import() -> tuple[float, int]:
    """Return the seconds that the import takes in a fresh interpreter, and how many top-level modules it loads."""
    done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.split()
    return float(seconds), int(modules)


if __name__ == "__main__":
    with postgres.running() as _stand:
        print("\n\n".join(map(as_text, tables(_stand, 15))))
