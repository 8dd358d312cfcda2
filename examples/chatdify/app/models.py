"""The tables: accounts, their conversations, and the messages of these."""

from __future__ import annotations

import enum

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db import Base, TimestampMixin

__all__ = ["Account", "Conversation", "Message", "Status"]


class Status(enum.StrEnum):
    """How far the answer to a message has come."""

    RECEIVED = "received"
    ANSWERED = "answered"
    DELIVERED = "delivered"


class Account(Base):
    """A customer, who is known by an API key."""

    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50))
    api_key: Mapped[str] = mapped_column(String(64), unique=True, repr=False)
    deliveries: Mapped[int] = mapped_column(default=0)


class Conversation(Base):
    """What one person and one account have written to each other."""

    __tablename__ = "conversations"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    person: Mapped[str] = mapped_column(String(100))
    views: Mapped[int] = mapped_column(default=0)
    messages: Mapped[list[Message]] = relationship(
        back_populates="conversation", default_factory=list, order_by="Message.id"
    )


class Message(TimestampMixin, Base):
    """A message as the chat platform sent it, and the answer to it.

    ``external_id`` is the platform's: a webhook that is delivered twice must not be answered twice.
    """

    __tablename__ = "messages"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    external_id: Mapped[str] = mapped_column(String(100), unique=True)
    text: Mapped[str]
    answer: Mapped[str | None] = mapped_column(default=None)
    status: Mapped[Status] = mapped_column(default=Status.RECEIVED)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversations.id"), init=False)
    conversation: Mapped[Conversation] = relationship(back_populates="messages", kw_only=True)
