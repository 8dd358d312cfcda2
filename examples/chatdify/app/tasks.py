"""The background work, done by Celery workers: answer a message, deliver the answer, tidy up at night."""

from __future__ import annotations

import asyncio
import os

from celery import Celery
from sqlalchemy import delete, select

from app import bot
from app.db import get_async_session, get_sync_session
from app.models import Account, Message, Status

__all__ = ["answer_message", "celery_app", "deliver_answer", "forget_delivered"]

celery_app = Celery("chatdify", broker=os.environ.get("CELERY_BROKER_URL", "amqp://localhost"))


@celery_app.task(name="chatdify.answer_message", autoretry_for=(bot.BotUnavailable,), max_retries=3, retry_backoff=True)
def answer_message(message_id: int) -> int:
    """Ask the model for an answer and store it; returns *message_id*, for the task that follows."""
    with get_sync_session() as session:
        message = session.get_one(Message, message_id)
        message.answer = bot.reply(message.text)
        message.status = Status.ANSWERED
    return message_id


@celery_app.task(name="chatdify.deliver_answer")
def deliver_answer(message_id: int) -> None:
    """Send the answer to the chat platform, and count it for the account's bill."""
    with get_sync_session() as session:
        message = session.get_one(Message, message_id)
        message.status = Status.DELIVERED
        # Counted under a lock: two workers may deliver for the same account at once.
        account = session.scalars(
            select(Account).where(Account.id == message.conversation.account_id).with_for_update()
        ).one()
        account.deliveries += 1


@celery_app.task(name="chatdify.forget_delivered")
def forget_delivered() -> int:
    """Delete what has been delivered, through code that is async; returns the number of messages."""
    return asyncio.run(_forget_delivered())


async def _forget_delivered() -> int:
    async with get_async_session() as session:
        deleted = await session.scalars(delete(Message).where(Message.status == Status.DELIVERED).returning(Message.id))
        return len(deleted.all())
