"""The tables of the suite that every contestant runs: one that the tests use, and 29 like those of a real project."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, String, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The declarative base of the suite."""


class User(Base):
    """What the tests write and read."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)


for _number in range(1, 30):
    Table(
        f"record_{_number}",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("user_id", ForeignKey("users.id"), index=True),
        Column("label", String(50), nullable=False, index=True),
    )
