"""What it takes to hand a pooled asyncpg connection out, and that none is handed out that is gone."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from app.db import async_engine, get_async_session


@pytest.mark.asyncio(loop_scope="function")
async def test_one_question_for_each_checkout() -> None:
    """A connection that was used before is asked once, by a single message."""
    asked: list[str] = []
    async with async_engine.connect() as connection:
        driver_connection: Any = (await connection.get_raw_connection()).driver_connection
        driver_connection.add_query_logger(lambda record: asked.append(record.query))

    async with get_async_session() as session:
        await session.execute(text("SELECT 2"))

    assert asked[0] == "SELECT 1"
    assert [sql for sql in asked if sql != "SELECT 2"] == ["SELECT 1", "BEGIN;", "COMMIT;"]


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.chatdify_db(isolation="database")
async def test_a_connection_that_is_gone_is_replaced() -> None:
    """Whose server process has ended while it lay in the pool."""
    async with get_async_session() as session, get_async_session() as other:
        await other.execute(text("SELECT 1"))
        lost = await session.scalar(text("SELECT pg_backend_pid()"))
        await session.commit()
        await session.close()
        await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": lost})

    async with get_async_session() as session, get_async_session() as other:
        pids = {await each.scalar(text("SELECT pg_backend_pid()")) for each in (session, other)}

    assert len(pids) == 2
    assert lost not in pids
