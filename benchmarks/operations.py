"""What applications do with a database, on psycopg2 and on asyncpg: prepared on an address, then called many times."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

import asyncpg
import psycopg2
from sqlalchemy import create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pytest_chatdify_db.postgres.address import Address

Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]
Prepared = AbstractContextManager[Call] | AbstractAsyncContextManager[AsyncCall]


class _Base(DeclarativeBase): ...


class _Item(_Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    amount: Mapped[int]


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that applications do.

    Args:
        name: What tables call it.
        driver: Which driver does it.
        prepare: Gives what to call, for an address.
        calls: How often it is called in one turn.
    """

    name: str
    driver: str
    prepare: Callable[[Address], Prepared]
    calls: int


async def enter(operation: Operation, address: Address, stack: AsyncExitStack) -> Call | AsyncCall:
    """Prepare *operation* on *address* until *stack* is closed, and return what to call."""
    prepared = operation.prepare(address)
    if isinstance(prepared, AbstractContextManager):
        return stack.enter_context(prepared)
    return await stack.enter_async_context(prepared)


async def take_turn(call: Call | AsyncCall, calls: int) -> float:
    """Call so many times; return the median of the seconds it takes."""
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        pending = call()
        if inspect.isawaitable(pending):
            await pending
        times.append(time.perf_counter() - begun)
    return median(times)


# psycopg2 ---------------------------------------------------------------------------------------------------------


@contextmanager
def _get(address: Address) -> Iterator[Call]:
    engine = create_engine(address.url("postgresql+psycopg2"))
    with Session(engine) as session:

        def call() -> None:
            session.expunge_all()
            session.get(_Item, 5)

        yield call
    engine.dispose()


@contextmanager
def _open_and_get(address: Address) -> Iterator[Call]:
    engine = create_engine(address.url("postgresql+psycopg2"))

    def call() -> None:
        with Session(engine) as session:
            session.get(_Item, 5)

    yield call
    engine.dispose()


@contextmanager
def _insert(address: Address) -> Iterator[Call]:
    engine = create_engine(address.url("postgresql+psycopg2"))

    def call() -> None:
        with Session(engine) as session:
            session.add(_Item(name="new", amount=1))
            session.commit()

    yield call
    engine.dispose()


@contextmanager
def _rows(count: int, address: Address) -> Iterator[Call]:
    engine = create_engine(address.url("postgresql+psycopg2"))
    statement = select(_Item.id, _Item.name, _Item.amount).limit(count)
    with Session(engine) as session:
        yield lambda: session.execute(statement).all()
    engine.dispose()


@contextmanager
def _select_1(address: Address) -> Iterator[Call]:
    connection = psycopg2.connect(address.url())
    connection.autocommit = True
    cursor = connection.cursor()
    yield lambda: cursor.execute("SELECT 1")
    connection.close()


@contextmanager
def _connect(address: Address) -> Iterator[Call]:
    yield lambda: psycopg2.connect(address.url()).close()


# asyncpg ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _async_get(address: Address) -> AsyncIterator[AsyncCall]:
    engine = create_async_engine(address.url("postgresql+asyncpg"))
    async with AsyncSession(engine) as session:

        async def call() -> None:
            session.expunge_all()
            await session.get(_Item, 5)

        yield call
    await engine.dispose()


@asynccontextmanager
async def _async_open_and_get(address: Address) -> AsyncIterator[AsyncCall]:
    engine = create_async_engine(address.url("postgresql+asyncpg"))

    async def call() -> None:
        async with AsyncSession(engine) as session:
            await session.get(_Item, 5)

    yield call
    await engine.dispose()


@asynccontextmanager
async def _async_insert(address: Address) -> AsyncIterator[AsyncCall]:
    engine = create_async_engine(address.url("postgresql+asyncpg"))

    async def call() -> None:
        async with AsyncSession(engine) as session:
            session.add(_Item(name="new", amount=1))
            await session.commit()

    yield call
    await engine.dispose()


@asynccontextmanager
async def _async_rows(count: int, address: Address) -> AsyncIterator[AsyncCall]:
    engine = create_async_engine(address.url("postgresql+asyncpg"))
    statement = select(_Item.id, _Item.name, _Item.amount).limit(count)
    async with AsyncSession(engine) as session:

        async def call() -> None:
            (await session.execute(statement)).all()

        yield call
    await engine.dispose()


@asynccontextmanager
async def _async_select_1(address: Address) -> AsyncIterator[AsyncCall]:
    connection = await asyncpg.connect(address.url())
    yield lambda: connection.fetchval("SELECT 1")
    await connection.close()


@asynccontextmanager
async def _async_connect(address: Address) -> AsyncIterator[AsyncCall]:
    async def call() -> None:
        await (await asyncpg.connect(address.url())).close()

    yield call


OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation("ORM get by primary key, in a transaction", "psycopg2", _get, 30),
    Operation("ORM get by primary key, in a transaction", "asyncpg", _async_get, 30),
    Operation("open a session, get, close", "psycopg2", _open_and_get, 30),
    Operation("open a session, get, close", "asyncpg", _async_open_and_get, 30),
    Operation("insert and commit", "psycopg2", _insert, 30),
    Operation("insert and commit", "asyncpg", _async_insert, 30),
    Operation("read 1,000 rows", "psycopg2", partial(_rows, 1_000), 10),
    Operation("read 1,000 rows", "asyncpg", partial(_async_rows, 1_000), 10),
    Operation("read 50,000 rows", "psycopg2", partial(_rows, 50_000), 1),
    Operation("read 50,000 rows", "asyncpg", partial(_async_rows, 50_000), 1),
    Operation("SELECT 1, no ORM", "psycopg2", _select_1, 50),
    Operation("SELECT 1, no ORM", "asyncpg", _async_select_1, 50),
    Operation("connect", "psycopg2", _connect, 8),
    Operation("connect", "asyncpg", _async_connect, 8),
)
