"""The tables. ``app.models`` is where migrations look for them unless ``DB_MODELS`` names other modules."""

from __future__ import annotations

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, TimestampMixin

__all__ = ["Order"]


class Order(TimestampMixin, Base):
    """What somebody ordered."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    reference: Mapped[str] = mapped_column(String(40), unique=True)
    is_confirmed: Mapped[bool] = mapped_column(default=False)
