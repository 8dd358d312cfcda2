"""Data for many tests: a module-scoped fixture commits it once, and the end of the module takes it back."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.db import get_sync_session
from app.models import Account, Conversation, Message
from pytest_chatdify_db import CountQueries


@pytest.fixture(scope="module", autouse=True)
def busy_account() -> int:
    """An account with three conversations of four messages each."""
    with get_sync_session() as session:
        account = Account("Busy", api_key="busy")
        session.add(account)
        session.flush()
        for person in ("Cleo", "Dan", "Eve"):
            conversation = Conversation(account.id, person)
            session.add_all(Message(f"{person}-{n}", f"Message {n}", conversation=conversation) for n in range(4))
    return account.id


def test_a_test_changes_the_shared_data(sync_session: Session) -> None:
    """A test may do what it likes with it ..."""
    for message in sync_session.scalars(select(Message)):
        sync_session.delete(message)
    sync_session.commit()

    assert sync_session.scalar(select(func.count()).select_from(Message)) == 0


async def test_the_next_test_finds_it_unchanged(session: AsyncSession) -> None:
    """... and the next test finds it as it was."""
    assert await session.scalar(select(func.count()).select_from(Message)) == 12


def test_queries_are_counted(busy_account: int, sync_session: Session, assert_num_queries: CountQueries) -> None:
    """One query for the conversations, and one more for each as soon as its messages are read."""
    conversations = select(Conversation).where(Conversation.account_id == busy_account)
    with assert_num_queries(4):
        total = sum(len(conversation.messages) for conversation in sync_session.scalars(conversations))

    assert total == 12
