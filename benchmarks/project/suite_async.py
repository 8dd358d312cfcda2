"""Async tests: write, commit, read. A row that another test left behind fails them."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models import User
from size import NUMBERS


@pytest.mark.asyncio
@pytest.mark.parametrize("number", NUMBERS)
async def test_async(session: AsyncSession, number: int) -> None:
    """What is committed is there, and nothing else."""
    session.add(User(name="Ada"))
    await session.commit()

    assert (await session.scalars(select(User.name))).all() == ["Ada"]
