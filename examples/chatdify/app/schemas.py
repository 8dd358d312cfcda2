"""What comes in and goes out as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from app.models import Status

__all__ = ["ConversationOut", "IncomingMessage", "MessageOut"]


class IncomingMessage(BaseModel):
    """A message as the chat platform's webhook delivers it."""

    external_id: str
    person: str
    text: str


class MessageOut(BaseModel):
    """A message and its answer."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    text: str
    answer: str | None
    status: Status


class ConversationOut(BaseModel):
    """A conversation with all its messages."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    person: str
    messages: list[MessageOut]
