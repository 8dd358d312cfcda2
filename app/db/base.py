"""The class every model derives from: SQLAlchemy 2 mapping and dataclass in one. It knows no settings and no engine.

An instance is an entity, not a value: two objects are equal only if they are the same object, whatever their columns
hold. ``repr`` shows what is loaded and never asks the database.
"""

from __future__ import annotations

import inspect
from datetime import datetime
from typing import Any, ClassVar, Final

from sqlalchemy import DateTime, MetaData, func
from sqlalchemy import inspect as inspect_mapping
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

__all__ = ["NAMING_CONVENTION", "Base", "TimestampMixin"]

# PostgreSQL's own names: a migration against tables that were made without a convention finds no difference.
NAMING_CONVENTION: Final = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "ix": "ix_%(column_0_label)s",
}


def _metadata() -> MetaData:
    """Return SQLModel's metadata where SQLModel is installed: foreign keys then work between old and new models."""
    try:
        from sqlmodel import SQLModel
    except ModuleNotFoundError:
        return MetaData(naming_convention=NAMING_CONVENTION)
    metadata: MetaData = SQLModel.metadata
    metadata.naming_convention = {**NAMING_CONVENTION, **_own_convention(metadata)}
    return metadata


def _own_convention(metadata: MetaData) -> dict[Any, Any]:
    """Return what the application has put into *metadata* before; SQLAlchemy's default has the key "ix" alone."""
    convention = dict(metadata.naming_convention)
    return {} if convention == dict(MetaData().naming_convention) else convention


class Base(AsyncAttrs, MappedAsDataclass, DeclarativeBase, eq=False, repr=False):
    """Base of all models.

    A model is declared so::

        class MyModel(Base):
            __tablename__ = "my_table"

            id: Mapped[int] = mapped_column(primary_key=True, init=False)
            name: Mapped[str] = mapped_column(String(50))

    ``datetime`` is stored with its time zone. Values made by the server (defaults, ``onupdate``) are read back with the
    statement that made them, so they are there after a flush, in async code too.
    """

    metadata: ClassVar[MetaData] = _metadata()
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: DateTime(timezone=True)}
    # Not annotated: an annotation would make it a field of the dataclass.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012 - see above

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # A mixin declared without eq=False brings comparison by value back, for the dataclass of this class too.
        if not options.get("eq") and _is_generated(cls, "__eq__"):
            cls.__eq__ = object.__eq__  # type: ignore[method-assign]  # takes back what the dataclass has generated
            cls.__hash__ = object.__hash__  # type: ignore[method-assign]  # takes back what the dataclass has generated
        if not options.get("repr") and _is_generated(cls, "__repr__"):
            cls.__repr__ = Base.__repr__  # type: ignore[method-assign]  # takes back what the dataclass has generated

    def __repr__(self) -> str:
        state = inspect_mapping(self)
        fields = type(self).__dataclass_fields__
        shown = [
            f"{attribute.key}={state.dict[attribute.key]!r}"
            for attribute in state.mapper.column_attrs
            if attribute.key in state.dict and (attribute.key not in fields or fields[attribute.key].repr)
        ]
        return f"{type(self).__qualname__}({', '.join(shown)})"


class TimestampMixin(MappedAsDataclass, eq=False, repr=False):
    """Adds when a row was made and last changed, by the server's clock: ``class MyModel(TimestampMixin, Base)``."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), init=False)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now(), init=False)


def _is_generated(cls: type, name: str) -> bool:
    """Return whether *cls* has the method that ``dataclass`` made for it or a mixin, rather than for a base model."""
    owner = next(each for each in cls.__mro__ if name in vars(each))
    if owner is not cls and issubclass(owner, Base):
        return False
    # dataclass compiles its methods from text.
    code = getattr(inspect.unwrap(vars(owner)[name]), "__code__", None)
    return code is not None and code.co_filename == "<string>"
