"""Tests of code that crosses the drivers: what asyncpg commits psycopg2 reads and changes, and asyncpg sees that."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from models import User
from size import NUMBERS


@pytest.mark.asyncio
@pytest.mark.parametrize("number", NUMBERS)
async def test_both(session: AsyncSession, sync_session: Session, number: int) -> None:
    """Each driver sees what the other one has committed, and nothing else."""
    session.add(User(name="Ada"))
    await session.commit()

    user = sync_session.scalars(select(User)).one()
    user.name += " Lovelace"
    sync_session.commit()

    assert (await session.scalars(select(User.name))).all() == ["Ada Lovelace"]
