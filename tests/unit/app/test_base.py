"""Base: entities compared by identity, a repr that asks nothing, names and types as PostgreSQL has them."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import CheckConstraint, ForeignKey, MetaData, String, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Mapped, MappedAsDataclass, mapped_column, relationship
from sqlalchemy.schema import CreateTable

from app.db import Base, TimestampMixin
from app.db.base import NAMING_CONVENTION

ROOT = Path(__file__).parents[3]


class Model(Base):
    """Keeps the tables of these tests out of the application's metadata."""

    __abstract__ = True
    metadata = MetaData(naming_convention=NAMING_CONVENTION)


class MyModel(Model):
    """The documented model."""

    __tablename__ = "my_table"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str] = mapped_column(String(50))


class Parent(Model):
    """A parent of children."""

    __tablename__ = "base_parent"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    children: Mapped[set[Child]] = relationship(back_populates="parent", default_factory=set)


class Child(Model):
    """A child that knows its parent, and a secret."""

    __tablename__ = "base_child"
    __table_args__ = (UniqueConstraint("parent_id", "label"), CheckConstraint("label <> ''", name="has_label"))

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("base_parent.id"), init=False, index=True)
    label: Mapped[str] = mapped_column(unique=True)
    secret: Mapped[str] = mapped_column(repr=False, default="")
    parent: Mapped[Parent | None] = relationship(back_populates="children", default=None)


class PlainMixin(MappedAsDataclass):
    """A mixin declared as most are: dataclass gives it ``__eq__`` and ``__repr__`` by value."""

    note: Mapped[str] = mapped_column(default="", kw_only=True)


class MixinFirst(PlainMixin, Model):
    """The mixin before the base."""

    __tablename__ = "base_mixin_first"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)


class MixinLast(Model, PlainMixin, kw_only=True):
    """The mixin behind the base."""

    __tablename__ = "base_mixin_last"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)


class Stamped(TimestampMixin, Model):
    """A row that knows its times."""

    __tablename__ = "base_stamped"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    at: Mapped[datetime | None] = mapped_column(default=None)


class ByLabel(Model):
    """A model that says itself what equal means."""

    __tablename__ = "base_by_label"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    label: Mapped[str]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByLabel) and other.label == self.label

    def __hash__(self) -> int:
        return hash(self.label)


class ByValue(Model, eq=True):
    """A model compared by value, as its author asked."""

    __tablename__ = "base_by_value"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    label: Mapped[str]


def ddl(model: type[Base]) -> str:
    """Return the CREATE TABLE of *model* on one line."""
    table = Model.metadata.tables[model.__tablename__]
    return " ".join(str(CreateTable(table).compile(dialect=postgresql.dialect())).split())  # type: ignore[no-untyped-call]  # SQLAlchemy has no type for it


def test_the_documented_model() -> None:
    """The model of the documentation takes its name by position or keyword, and gets its id from the database."""
    assert MyModel("x").name == "x"
    assert MyModel(name="x").name == "x"
    assert MyModel("x").id is None
    with pytest.raises(TypeError, match="unexpected keyword argument 'id'"):
        MyModel(id=1, name="x")  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'name'"):
        MyModel()  # type: ignore[call-arg]  # wrong on purpose


def test_a_model_without_tablename() -> None:
    """ "SQLAlchemy 2 requires explicit ``__tablename__``": the error says so."""
    with pytest.raises(InvalidRequestError, match="does not have a __table__ or __tablename__ specified"):

        class Nameless(Model):
            id: Mapped[int] = mapped_column(primary_key=True, init=False)


@pytest.mark.parametrize("kind", [MixinFirst, MixinLast])
def test_plain_mixin_does_not_bring_equality_by_value(kind: type[MixinFirst | MixinLast]) -> None:
    """A mixin without ``eq=False`` changes neither equality nor hash nor repr, wherever it stands."""
    first, second = kind(note="n"), kind(note="n")

    assert first != second
    assert len({first, second}) == 2
    assert repr(first) == f"{kind.__name__}(note='n')"


def test_own_equality_is_kept() -> None:
    """A model's own ``__eq__`` and ``__hash__`` stay, and so does comparison by value where it is asked for."""
    assert ByLabel("a") == ByLabel("a")
    assert len({ByLabel("a"), ByLabel("a")}) == 1
    assert ByValue("a") == ByValue("a")
    assert ByValue("a") != ByValue("b")


def test_identity() -> None:
    """Two objects with the same columns are two entities, also in a set and a list."""
    first, second = MyModel("x"), MyModel("x")
    both = [first, second]
    both.remove(second)

    assert first != second
    assert both == [first]
    assert both[0] is first


def test_relations_do_not_recurse() -> None:
    """Parents and children that know each other can be compared, collected and printed."""
    parent = Parent()
    child = Child("a", parent=parent)

    assert parent.children == {child}
    assert parent == parent  # noqa: PLR0124 - what is tested is __eq__
    assert repr(child) == "Child(label='a')"


def test_repr_shows_columns_that_are_loaded() -> None:
    """The repr has the loaded columns, without those declared ``repr=False`` and without relations."""
    child = Child("a", secret="s3cr3t")
    child.id = 7

    assert "s3cr3t" not in repr(child)
    assert repr(child) == "Child(id=7, label='a')"


def test_names_are_postgresqls_own() -> None:
    """Constraints are named as PostgreSQL names them, so that existing tables show no difference."""
    assert ddl(Child) == (
        "CREATE TABLE base_child ( id SERIAL NOT NULL, parent_id INTEGER, label VARCHAR NOT NULL, "
        "secret VARCHAR NOT NULL, CONSTRAINT base_child_pkey PRIMARY KEY (id), "
        "CONSTRAINT base_child_parent_id_label_key UNIQUE (parent_id, label), "
        "CONSTRAINT has_label CHECK (label <> ''), "
        "CONSTRAINT base_child_parent_id_fkey FOREIGN KEY(parent_id) REFERENCES base_parent (id), "
        "CONSTRAINT base_child_label_key UNIQUE (label) )"
    )
    assert {index.name for index in Model.metadata.tables["base_child"].indexes} == {"ix_base_child_parent_id"}


def test_datetimes_have_a_time_zone() -> None:
    """Every ``datetime`` is a timestamp with time zone, optional ones too; the server sets the mixin's."""
    assert ddl(Stamped) == (
        "CREATE TABLE base_stamped ( id SERIAL NOT NULL, at TIMESTAMP WITH TIME ZONE, "
        "created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, "
        "updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, "
        "CONSTRAINT base_stamped_pkey PRIMARY KEY (id) )"
    )


def run(code: str) -> str:
    """Run *code* in a fresh interpreter that fails on any warning, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_one_metadata_with_sqlmodel() -> None:
    """Where SQLModel is installed, old and new models share a metadata: foreign keys by name work both ways."""
    pytest.importorskip("sqlmodel")
    code = """
from sqlmodel import Field, SQLModel
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column
from app.db import Base

class Old(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    new_id: int | None = Field(default=None, foreign_key="new.id", unique=True)

class New(Base):
    __tablename__ = "new"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    old_id: Mapped[int | None] = mapped_column(ForeignKey("old.id"), default=None)

assert Base.metadata is SQLModel.metadata
print([key.column.table.name for name in ("old", "new") for key in Base.metadata.tables[name].foreign_keys])
print(sorted(str(c.name) for c in Old.__table__.constraints))
"""
    assert run(code) == "['new', 'old']\n['old_new_id_fkey', 'old_new_id_key', 'old_pkey']"


def test_an_applications_convention_stays() -> None:
    """Names the application has chosen for SQLModel's metadata win."""
    pytest.importorskip("sqlmodel")
    code = """
from sqlmodel import SQLModel
SQLModel.metadata.naming_convention = {"pk": "pk_%(table_name)s"}
from app.db import Base
print(Base.metadata.naming_convention["pk"], Base.metadata.naming_convention["uq"])
"""
    assert run(code) == "pk_%(table_name)s %(table_name)s_%(column_0_N_name)s_key"


def test_without_sqlmodel() -> None:
    """Where SQLModel is not installed, Base has a metadata of its own with the same names."""
    code = """
import sys
sys.modules["sqlmodel"] = None
from app.db import Base
from app.db.base import NAMING_CONVENTION
print(dict(Base.metadata.naming_convention) == NAMING_CONVENTION)
"""
    assert run(code) == "True"
