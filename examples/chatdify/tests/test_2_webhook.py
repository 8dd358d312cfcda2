"""The main flow: a request through asyncpg commits, and the task it sends works on the same row through psycopg2."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.main import app
from app.models import Account, Conversation, Message, Status

HELLO = {"external_id": "wa-1", "person": "Cleo", "text": "Hello"}
KEY = {"X-API-Key": "secret"}


@pytest.mark.usefixtures("account", "eager")
async def test_a_message_is_answered_and_delivered(client: httpx.AsyncClient, session: AsyncSession) -> None:
    """The request stores the message; the task answers it, and the task linked to that one delivers the answer."""
    response = await client.post("/webhook", json=HELLO, headers=KEY)

    assert response.status_code == 202
    message = (await session.scalars(select(Message))).one()
    assert message.answer == "You said: Hello"
    assert message.status is Status.DELIVERED
    assert await session.scalar(select(Account.deliveries)) == 1


@pytest.mark.usefixtures("account", "eager")
async def test_a_message_delivered_twice_is_a_conflict(client: httpx.AsyncClient, sync_session: Session) -> None:
    """The unique constraint answers the second delivery with 409, and what the first one stored stays."""
    first = await client.post("/webhook", json=HELLO, headers=KEY)
    second = await client.post("/webhook", json=HELLO, headers=KEY)

    assert [first.status_code, second.status_code] == [202, 409]
    assert sync_session.scalar(select(func.count()).select_from(Message)) == 1


@pytest.mark.usefixtures("eager")
async def test_a_conversation_is_read(client: httpx.AsyncClient, account: Account, session: AsyncSession) -> None:
    """The background task, which runs after the response in its own session, has counted the view."""
    await client.post("/webhook", json=HELLO, headers=KEY)
    conversation = (await session.scalars(select(Conversation))).one()

    response = await client.get(f"/conversations/{conversation.id}", headers=KEY)

    assert [message["answer"] for message in response.json()["messages"]] == ["You said: Hello"]
    await session.refresh(conversation)
    assert conversation.views == 1


async def test_the_application_is_healthy(client: httpx.AsyncClient) -> None:
    """The health check reaches a real PostgreSQL."""
    response = await client.get("/health")

    assert response.status_code == 200
    assert response.json()["database"] == "ok"


async def test_the_application_starts_and_stops(client: httpx.AsyncClient) -> None:
    """Its end closes the connections of production's own pools, which a test may use again afterwards."""
    async with app.router.lifespan_context(app):
        await client.get("/health")

    assert (await client.get("/health")).status_code == 200
