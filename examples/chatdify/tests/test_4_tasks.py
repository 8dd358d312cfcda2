"""Celery tasks, eager: each opens its own session, as in a worker; retries, links and chains run as in a worker."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from celery import chain
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app import bot
from app.models import Account, Conversation, Message, Status
from app.tasks import answer_message, celery_app, deliver_answer, forget_delivered
from pytest_chatdify_db import CeleryEager


@pytest.fixture
def message(account: Account, sync_session: Session) -> Message:
    """A message that waits for its answer."""
    message = Message("wa-1", "Hello", conversation=Conversation(account.id, "Cleo"))
    sync_session.add(message)
    sync_session.commit()
    return message


def test_a_task_called_by_hand(message: Message, sync_session: Session) -> None:
    """A task is a function: to test what it does, call it."""
    answer_message(message.id)

    sync_session.refresh(message)
    assert message.answer == "You said: Hello"


@pytest.mark.usefixtures("eager")
def test_a_chain(message: Message, sync_session: Session) -> None:
    """Each task of a chain gets what the one before it returned, and sees what it committed."""
    chain(answer_message.s(message.id), deliver_answer.s()).delay()

    sync_session.refresh(message)
    assert message.status is Status.DELIVERED


@pytest.mark.usefixtures("eager")
def test_a_task_sent_by_name(message: Message, sync_session: Session) -> None:
    """``send_task`` needs no import of the task, and no broker here."""
    celery_app.send_task("chatdify.deliver_answer", (message.id,))

    sync_session.refresh(message)
    assert message.status is Status.DELIVERED


def test_a_retry(
    message: Message, sync_session: Session, celery_eager: CeleryEager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is away twice, and the third attempt succeeds; ``propagates=False`` lets Celery do its retries."""
    celery_eager(celery_app, propagates=False)
    monkeypatch.setattr(bot, "reply", Mock(side_effect=[bot.BotUnavailable, bot.BotUnavailable, "Hello again"]))
    result = answer_message.delay(message.id)

    assert result.state == "SUCCESS"
    sync_session.refresh(message)
    assert message.answer == "Hello again"


def test_a_failure_leaves_nothing_half_done(
    message: Message, sync_session: Session, celery_eager: CeleryEager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the model stays away the task fails for good, and the message still waits."""
    celery_eager(celery_app, propagates=False)
    monkeypatch.setattr(bot, "reply", Mock(side_effect=bot.BotUnavailable))
    result = answer_message.delay(message.id)

    assert result.state == "FAILURE"
    sync_session.refresh(message)
    assert message.status is Status.RECEIVED


@pytest.mark.usefixtures("eager")
async def test_a_task_that_runs_async_code(message: Message, session: AsyncSession) -> None:
    """The task calls ``asyncio.run``, although it was sent from a running event loop."""
    deliver_answer.delay(message.id)
    assert forget_delivered.delay().get() == 1

    assert await session.scalar(select(func.count()).select_from(Message)) == 0
