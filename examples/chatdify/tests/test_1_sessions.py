"""Sessions: async, sync, or both in one test. Commit as production does; the end of the test takes it all back."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.db import get_async_session, get_sync_session
from app.models import Account


async def test_async_session(session: AsyncSession) -> None:
    """An async test asks for ``session``."""
    session.add(Account("Ann", api_key="a"))
    await session.commit()

    assert await session.scalar(select(func.count()).select_from(Account)) == 1


def test_sync_session(sync_session: Session) -> None:
    """A plain test asks for ``sync_session``; what the test before it committed is gone."""
    assert sync_session.scalars(select(Account)).all() == []

    sync_session.add(Account("Bob", api_key="b"))
    sync_session.commit()


async def test_both_drivers_see_what_the_other_committed(session: AsyncSession, sync_session: Session) -> None:
    """asyncpg and psycopg2 are two connections, as in production, and in one transaction, which is the test's."""
    session.add(Account("Ann", api_key="a"))
    await session.commit()
    ann = sync_session.scalars(select(Account)).one()
    ann.name = "Ann's shop"
    sync_session.commit()

    assert await session.scalar(select(Account.name)) == "Ann's shop"


async def test_what_is_not_committed_can_be_rolled_back(session: AsyncSession) -> None:
    """A rollback undoes what the session did since its last commit, and nothing else."""
    session.add(Account("Ann", api_key="a"))
    await session.commit()
    session.add(Account("Bob", api_key="b"))
    await session.flush()
    await session.rollback()

    assert (await session.scalars(select(Account.name))).all() == ["Ann"]


async def test_an_error_leaves_the_session_usable(session: AsyncSession) -> None:
    """An expected error is expected as ever; after a rollback, work goes on."""
    session.add(Account("Ann", api_key="same"))
    await session.commit()
    session.add(Account("Bob", api_key="same"))
    with pytest.raises(IntegrityError, match="accounts_api_key_key"):
        await session.commit()
    await session.rollback()
    session.add(Account("Bob", api_key="other"))
    await session.commit()

    assert await session.scalar(select(func.count()).select_from(Account)) == 2


@pytest.mark.asyncio(loop_scope="function")
async def test_in_an_event_loop_of_its_own(session: AsyncSession, sync_session: Session) -> None:
    """The settings give all tests one loop, which is the cheapest; in any other, ``session`` follows the test."""
    session.add(Account("Ann", api_key="a"))
    await session.commit()

    assert sync_session.scalar(select(Account.name)) == "Ann"


async def test_no_fixture_is_needed() -> None:
    """Code that opens its own sessions is in the test's transaction too; this test asks for no fixture at all."""
    with get_sync_session() as session:
        session.add(Account("Ann", api_key="a"))
    async with get_async_session() as async_session:
        names = (await async_session.scalars(select(Account.name))).all()

    assert names == ["Ann"]


def test_no_fixture_is_needed_to_be_undone() -> None:
    """The account of the test before is gone."""
    with get_sync_session() as session:
        assert session.scalars(select(Account)).all() == []
