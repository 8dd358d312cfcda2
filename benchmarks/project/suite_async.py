"""Async tests: write, commit, read. A row that another test left behind fails them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models import User
from size import NUMBERS
from stopwatch import Stopwatch


async def write_and_read(session: AsyncSession, name: str) -> list[str]:
    """Commit a user; return the names of the last two."""
    session.add(User(name=name))
    await session.commit()
    return list(await session.scalars(select(User.name).order_by(User.id.desc()).limit(2)))


@pytest.mark.asyncio
@pytest.mark.parametrize("number", NUMBERS)
async def test_async(session: AsyncSession, number: int) -> None:
    """What is committed is there, and nothing else."""
    assert await write_and_read(session, "Ada") == ["Ada"]


@pytest.mark.asyncio
async def test_warm(session: AsyncSession, record_property: Callable[[str, object], None]) -> None:
    """The same body on a session that is open and warm."""
    stopwatch = Stopwatch()
    for number in stopwatch.rounds():
        assert (await write_and_read(session, f"Ada {number}"))[0] == f"Ada {number}"
    record_property("body", stopwatch.median)
