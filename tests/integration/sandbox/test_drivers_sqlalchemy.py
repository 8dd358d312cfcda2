"""The two engines of an application in one transaction: what each does, the other sees, and no error spreads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .drivers import Item, Note, async_engine, count, sync_engine
from .stage import StagedSandbox


@pytest.fixture
def engine(sandbox: StagedSandbox) -> Iterator[Engine]:
    """Give the psycopg2 engine."""
    with sync_engine(sandbox) as engine:
        yield engine


def test_each_engine_sees_what_the_other_commits(sandbox: StagedSandbox, engine: Engine) -> None:
    """A row goes through both drivers, and the pools' rollback at every close leaves it."""

    async def main() -> None:
        async with async_engine(sandbox) as other:
            async with AsyncSession(other) as session:
                session.add(Item(id=10, name="async"))
                await session.commit()
            with Session(engine) as sync_session:
                sync_session.get_one(Item, 10).name = "sync"
                sync_session.commit()
            async with AsyncSession(other) as session:
                assert (await session.get_one(Item, 10)).name == "sync"

    asyncio.run(main())


def test_the_sync_driver_works_while_the_async_one_is_in_a_transaction(sandbox: StagedSandbox, engine: Engine) -> None:
    """On the event loop's thread, between two statements of an open transaction, as an eager task does."""

    async def main() -> None:
        async with async_engine(sandbox) as other, AsyncSession(other) as session:
            session.add(Item(id=10, name="webhook"))
            await session.flush()
            with Session(engine) as task, task.begin():
                task.add(Item(id=11, name="task"))
            session.add(Item(id=12, name="webhook again"))
            await session.commit()

    asyncio.run(main())
    with Session(engine) as session:
        assert count(session) == 6


@pytest.mark.parametrize("nested", [False, True], ids=["transaction", "savepoint"])
def test_an_error_of_the_sync_driver_stays_its_own(sandbox: StagedSandbox, engine: Engine, *, nested: bool) -> None:
    """After an IntegrityError of one engine the other works on, and so does the first after its rollback."""

    async def main() -> None:
        async with async_engine(sandbox) as other, AsyncSession(other) as session:
            session.add(Item(id=10, name="kept"))
            await session.flush()
            with Session(engine) as broken:
                broken.add(Item(id=11, name="first"))
                broken.flush()
                with pytest.raises(IntegrityError, match="items_name_key"):
                    if nested:
                        with broken.begin_nested():
                            broken.execute(insert(Item).values(id=12, name="kept"))
                    else:
                        broken.execute(insert(Item).values(id=12, name="kept"))
                if not nested:
                    broken.rollback()
                    broken.add(Item(id=11, name="again"))
                broken.commit()
            session.add(Item(id=13, name="later"))
            await session.commit()

    asyncio.run(main())
    with Session(engine) as session:
        assert set(session.scalars(select(Item.id))) == {1, 2, 3, 10, 11, 13}
        assert session.get_one(Item, 11).name == ("first" if nested else "again")


@pytest.mark.parametrize("nested", [False, True], ids=["transaction", "savepoint"])
def test_an_error_of_the_async_driver_stays_its_own(sandbox: StagedSandbox, engine: Engine, *, nested: bool) -> None:
    """The same the other way round."""

    async def main() -> None:
        async with async_engine(sandbox) as other:
            async with AsyncSession(other) as broken:
                broken.add(Item(id=11, name="first"))
                await broken.flush()
                with pytest.raises(IntegrityError, match="items_name_key"):
                    if nested:
                        async with broken.begin_nested():
                            await broken.execute(insert(Item).values(id=12, name="one"))
                    else:
                        await broken.execute(insert(Item).values(id=12, name="one"))
                with Session(engine) as session:
                    session.get_one(Item, 3)
                if not nested:
                    await broken.rollback()
                await broken.commit()
            with Session(engine) as session:
                session.add(Item(id=13, name="later"))
                session.commit()
            async with AsyncSession(other) as session:
                assert await session.run_sync(count) == (5 if nested else 4)

    asyncio.run(main())


def test_savepoints_of_both_engines_nest_as_they_are_written(sandbox: StagedSandbox, engine: Engine) -> None:
    """Both dialects call them alike; each rolls back its own."""

    async def main() -> None:
        async with async_engine(sandbox) as other, AsyncSession(other) as session, session.begin():
            outer = await session.begin_nested()
            session.add(Item(id=10, name="a"))
            await session.flush()
            with Session(engine) as second, second.begin():
                inner = second.begin_nested()
                second.add(Item(id=11, name="b"))
                second.flush()
                inner.rollback()
                second.add(Item(id=12, name="c"))
            assert await session.run_sync(count) == 5
            await outer.commit()

    asyncio.run(main())
    with Session(engine) as session:
        assert set(session.scalars(select(Item.id))) == {1, 2, 3, 10, 12}


def test_many_rows_are_inserted_with_returning(sandbox: StagedSandbox, engine: Engine) -> None:
    """The batches of both dialects come back with every key, in order."""
    Note.metadata.create_all(engine, [Note.__table__])  # type: ignore[list-item]  # a Table, typed as FromClause
    statement = insert(Note).returning(Note.id, sort_by_parameter_order=True)
    values = [{"text": f"note {number}"} for number in range(3_000)]

    async def main() -> list[int]:
        async with async_engine(sandbox) as other, AsyncSession(other) as session:
            keys = list(await session.scalars(statement, values))
            await session.commit()
            return keys

    with Session(engine) as session:
        keys = list(session.scalars(statement, values))
        session.commit()

    assert keys == list(range(1, 3_001))
    assert asyncio.run(main()) == list(range(3_001, 6_001))


def test_rows_are_streamed_while_the_other_engine_writes(sandbox: StagedSandbox, engine: Engine) -> None:
    """A server-side cursor of each driver gives all its rows, whatever is committed in between."""
    numbers = text("SELECT * FROM generate_series(1, 2000)")

    async def main() -> None:
        async with async_engine(sandbox) as other, AsyncSession(other) as session:
            found = []
            async for number in (await session.stream(numbers)).scalars():
                if number % 500 == 0:
                    with Session(engine) as writer, writer.begin():
                        writer.add(Item(id=number, name=str(number)))
                found.append(number)
            assert found == list(range(1, 2_001))

            with engine.connect().execution_options(stream_results=True, max_row_buffer=100) as connection:
                found = []
                for number in connection.execute(numbers).scalars():
                    if number % 500 == 0:
                        await session.execute(
                            text("UPDATE items SET name = name || '!' WHERE id = :id"), {"id": number}
                        )
                        await session.commit()
                    found.append(number)
            assert found == list(range(1, 2_001))

    asyncio.run(main())
    with Session(engine) as session:
        assert session.get_one(Item, 2_000).name == "2000!"


def test_two_async_sessions_interleave(sandbox: StagedSandbox) -> None:
    """Each commits what it has written, though their transactions overlap."""

    async def main() -> None:
        async with async_engine(sandbox) as other:

            async def work(first: int) -> None:
                for number in range(first, first + 20):
                    async with AsyncSession(other) as session, session.begin():
                        session.add(Item(id=number, name=str(number)))
                        await session.flush()
                        await session.execute(text("SELECT pg_sleep(0)"))

            await asyncio.gather(work(100), work(200))
            async with AsyncSession(other) as session:
                assert await session.run_sync(count) == 43

    asyncio.run(main())


def test_eight_threads_work_at_once(sandbox: StagedSandbox) -> None:
    """Each of a pool's threads writes and reads its own rows; an error of one is nobody else's."""

    def work(engine: Engine, worker: int) -> int:
        for number in range(10):
            with Session(engine) as session:
                session.add(Item(id=worker * 100 + number, name=f"{worker}/{number}"))
                session.commit()
            with pytest.raises(IntegrityError), Session(engine) as session:
                session.execute(insert(Item).values(id=1, name="taken"))
        with Session(engine) as session:
            return len(session.scalars(select(Item).where(Item.name.like(f"{worker}/%"))).all())

    with sync_engine(sandbox, size=8) as engine, concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda worker: work(engine, worker), range(1, 9))) == [10] * 8


def test_a_child_process_is_in_the_same_transaction(sandbox: StagedSandbox, engine: Engine) -> None:
    """It reads what this one has committed, and what it commits itself is seen here and undone with the rest."""
    with Session(engine) as session:
        session.add(Item(id=10, name="parent"))
        session.commit()
    code = (
        "import sys, psycopg2\n"
        "with psycopg2.connect(sys.argv[1]) as connection, connection.cursor() as cursor:\n"
        "    cursor.execute(\"UPDATE items SET name = name || ' and child' WHERE id = 10\")\n"
        "connection.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, sandbox.url], check=True)
    with Session(engine) as session:
        assert session.get_one(Item, 10).name == "parent and child"

    sandbox.pop()
    with Session(engine) as session:
        assert session.get(Item, 10) is None


def test_a_pool_survives_frames(sandbox: StagedSandbox, engine: Engine) -> None:
    """Connections and the statements they have prepared are used from test to test, however a test ended."""

    async def main() -> None:
        async with async_engine(sandbox) as other:
            for _ in range(3):
                sandbox.push("a test")
                async with AsyncSession(other) as session:
                    session.add(Item(id=10, name="here"))
                    await session.flush()
                with Session(engine) as sync_session:
                    assert sync_session.get(Item, 10) is None
                    sync_session.add(Item(id=11, name="there"))
                    sync_session.commit()
                assert sandbox.pop().wrote

    asyncio.run(main())


def test_pre_ping_replaces_connections_that_the_server_ended(sandbox: StagedSandbox, engine: Engine) -> None:
    """After the backend's death and the end of that test, the pools work without a word."""
    with Session(engine) as session:
        count(session)
    sandbox.push("a test that kills")
    with engine.connect() as connection, pytest.raises(OperationalError):
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert "terminating connection" in sandbox.pop().lost
    with Session(engine) as session:
        assert count(session) == 3
