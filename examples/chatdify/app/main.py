"""The web application: a webhook for chat platforms, and conversations to read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, status
from fastapi.responses import JSONResponse
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from app import legacy
from app.auth import CurrentAccount
from app.db import DatabaseUnavailable, check_database, dispose_engines, get_async_session, get_session
from app.models import Account, Conversation, Message
from app.schemas import ConversationOut, IncomingMessage, MessageOut
from app.tasks import answer_message, deliver_answer

__all__ = ["app"]

DbSession = Annotated[AsyncSession, Depends(get_session)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Close the database connections when the server stops."""
    yield
    await dispose_engines()


app = FastAPI(title="Chatdify", lifespan=lifespan)
app.include_router(legacy.router)


@app.post("/webhook", status_code=status.HTTP_202_ACCEPTED)
async def receive_message(incoming: IncomingMessage, account: CurrentAccount, session: DbSession) -> MessageOut:
    """Store a message, and let a worker answer it and deliver the answer."""
    conversation = await _conversation(session, account, incoming.person)
    message = Message(incoming.external_id, incoming.text, conversation=conversation)
    session.add(message)
    # The worker has a connection of its own: it finds the message once it is committed, and not before.
    await session.commit()
    answer_message.apply_async((message.id,), link=deliver_answer.s())
    return MessageOut.model_validate(message)


@app.get("/conversations/{conversation_id}")
async def read_conversation(
    conversation_id: int, account: CurrentAccount, session: DbSession, background: BackgroundTasks
) -> ConversationOut:
    """Return one of the caller's conversations."""
    conversation = await session.scalar(
        select(Conversation)
        .where(Conversation.id == conversation_id, Conversation.account_id == account.id)
        .options(selectinload(Conversation.messages))
    )
    if conversation is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, "There is no such conversation.")
    background.add_task(count_view, conversation_id)
    return ConversationOut.model_validate(conversation)


@app.get("/health")
async def health() -> JSONResponse:
    """Tell the load balancer whether this instance reaches its database."""
    try:
        seconds = await check_database(timeout=1.0)
    except DatabaseUnavailable:
        return JSONResponse({"database": "unavailable"}, status.HTTP_503_SERVICE_UNAVAILABLE)
    return JSONResponse({"database": "ok", "seconds": seconds})


@app.exception_handler(IntegrityError)
async def conflict(request: Request, error: IntegrityError) -> JSONResponse:
    """Answer a broken constraint, noticed at a statement or at the commit, with 409."""
    return JSONResponse({"detail": "This exists already."}, status.HTTP_409_CONFLICT)


async def count_view(conversation_id: int) -> None:
    """Count that a conversation was read. It runs after the response, so it opens a session of its own."""
    async with get_async_session() as session:
        await session.execute(
            update(Conversation).where(Conversation.id == conversation_id).values(views=Conversation.views + 1)
        )


async def _conversation(session: AsyncSession, account: Account, person: str) -> Conversation:
    """Return the conversation of *account* with *person*, a new one if they have not talked before."""
    found = await session.scalar(
        select(Conversation).where(Conversation.account_id == account.id, Conversation.person == person)
    )
    if found is None:
        found = Conversation(account.id, person)
        session.add(found)
    return found
