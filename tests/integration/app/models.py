"""Tables for the tests of the production layer, in a metadata of their own."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, MetaData, String, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.db.base import NAMING_CONVENTION


class Model(Base):
    """Keeps these tables out of the application's metadata."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class MyModel(Model):
    """The documented model."""

    __tablename__ = "my_table"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50))


class Line(Model):
    """A row whose foreign key is checked at COMMIT: a way to make a commit fail."""

    __tablename__ = "my_line"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    owner_id: Mapped[int] = mapped_column(ForeignKey(MyModel.id, deferrable=True, initially="DEFERRED"))


class Stamp(Model):
    """A row with values that the server makes."""

    __tablename__ = "my_stamp"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    text: Mapped[str]
    made: Mapped[datetime] = mapped_column(server_default=func.now(), init=False)
    changed: Mapped[datetime] = mapped_column(
        server_default=func.clock_timestamp(), onupdate=func.clock_timestamp(), init=False
    )
