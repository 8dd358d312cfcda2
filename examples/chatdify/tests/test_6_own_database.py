"""A database of its own: for what one transaction cannot show, such as two connections that wait for each other.

Each connection is then a PostgreSQL session of its own, commits are real, and the database is removed after the test.
"""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.db import get_async_session, get_sync_session, sqlstate
from app.models import Account
from pytest_chatdify_db import Database

pytestmark = pytest.mark.chatdify_db(isolation="database")

LOCK_NOT_AVAILABLE = "55P03"


def test_a_locked_row_is_locked_for_others(account: Account, chatdify_db: Database) -> None:
    """A row lock keeps another connection out; in one transaction a lock would never be in anyone's way."""
    assert chatdify_db.isolation == "database"
    locked = select(Account).where(Account.id == account.id).with_for_update(nowait=True)
    with get_sync_session() as first, get_sync_session() as second:
        first.scalars(locked).one()
        with pytest.raises(DBAPIError) as refused:
            second.scalars(locked).one()
        second.rollback()

    assert sqlstate(refused.value) == LOCK_NOT_AVAILABLE


async def test_uncommitted_rows_are_invisible_to_others(session: AsyncSession) -> None:
    """What one connection has not committed, another does not see."""
    session.add(Account("Ann", api_key="a"))
    await session.flush()
    async with get_async_session() as other:
        before = await other.scalar(select(func.count()).select_from(Account))
    await session.commit()
    async with get_async_session() as other:
        after = await other.scalar(select(func.count()).select_from(Account))

    assert (before, after) == (0, 1)


def test_time_moves_between_transactions(sync_session: Session) -> None:
    """``now()`` is the start of the transaction: inside one rolled-back transaction it would stand still."""
    first = sync_session.scalar(select(func.now()))
    sync_session.commit()
    second = sync_session.scalar(select(func.now()))

    assert first is not None
    assert second is not None
    assert first < second
