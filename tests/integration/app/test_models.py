"""Models at work, with both drivers: values that the server makes, inheritance, collections, time zones, their repr."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

import pytest
from sqlalchemy import Computed, ForeignKey, MetaData, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, MappedAsDataclass, Session, mapped_column, relationship

from app.db import Base, TimestampMixin, create_tables, get_async_session, get_sync_session
from app.db.base import NAMING_CONVENTION

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("zoo", "no_connection_in_use")]

Work = Callable[[Session], Any]
Run = Callable[[Work], Awaitable[Any]]


class Zoo(Base):
    """Keeps these tables out of the application's metadata."""

    __abstract__ = True
    metadata: ClassVar[MetaData] = MetaData(naming_convention=NAMING_CONVENTION)


class Noted(MappedAsDataclass):
    """A mixin with a default, as anybody would write it."""

    note: Mapped[str] = mapped_column(default="", kw_only=True)


class Keeper(Noted, Zoo):
    """A parent with a set of children."""

    __tablename__ = "keeper"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    name: Mapped[str]
    animals: Mapped[set[Animal]] = relationship(back_populates="keeper", default_factory=set, kw_only=True)


class Animal(TimestampMixin, Zoo):
    """A parent class with a table of its own."""

    __tablename__ = "animal"
    __mapper_args__ = {  # noqa: RUF012 - annotated, it would be a field
        "polymorphic_on": "kind",
        "polymorphic_identity": "animal",
        "eager_defaults": True,
    }

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    kind: Mapped[str] = mapped_column(init=False)
    name: Mapped[str]
    call: Mapped[str] = mapped_column(Computed("upper(name) || '!'"), init=False)
    changes: Mapped[int] = mapped_column(server_default="0", onupdate=func.length("four"), init=False)
    keeper_id: Mapped[int | None] = mapped_column(ForeignKey(Keeper.id), init=False)
    born: Mapped[datetime | None] = mapped_column(default=None, kw_only=True)
    keeper: Mapped[Keeper | None] = relationship(back_populates="animals", default=None, kw_only=True)


class Dog(Animal):
    """A child class with a table of its own."""

    __tablename__ = "dog"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - annotated, it would be a field

    id: Mapped[int] = mapped_column(ForeignKey(Animal.id), primary_key=True, init=False)
    tricks: Mapped[int] = mapped_column(kw_only=True)


class Cat(Animal):
    """A child class in its parent's table."""

    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012 - annotated, it would be a field

    lives: Mapped[int | None] = mapped_column(default=9, kw_only=True)


@pytest.fixture
def zoo() -> None:
    """Create the tables."""
    create_tables(Zoo.metadata)


@asynccontextmanager
async def _psycopg2() -> AsyncIterator[Session]:
    with get_sync_session() as session:
        yield session


@pytest.fixture(params=[_psycopg2, get_async_session], ids=["psycopg2", "asyncpg"])
def run(request: pytest.FixtureRequest) -> Run:
    """Give ``await run(work)``: call *work* with a session; over asyncpg any lazy load in it would fail."""
    scope: Callable[[], AbstractAsyncContextManager[Session | AsyncSession]] = request.param

    async def call(work: Work) -> Any:
        async with scope() as session:
            return await session.run_sync(work) if isinstance(session, AsyncSession) else work(session)

    return call


async def test_values_of_the_server() -> None:
    """Defaults, computed columns and ``onupdate`` are there after each flush, with no await and no further query."""
    async with get_async_session() as session:
        session.add(cat := Cat("Tom"))
        await session.flush()
        made = (cat.kind, cat.call, cat.changes, cat.created_at.tzinfo is not None)
        cat.name = "Kit"
        await session.flush()

        assert made == ("cat", "TOM!", 0, True)
        assert (cat.call, cat.changes) == ("KIT!", 4)
        assert cat.updated_at >= cat.created_at


async def test_values_of_the_server_with_psycopg2() -> None:
    """They are the same over the other driver."""
    with get_sync_session() as session:
        session.add(cat := Cat("Tom"))
        session.flush()
        assert (cat.kind, cat.call, cat.changes) == ("cat", "TOM!", 0)
        cat.name = "Kit"

    assert (cat.call, cat.changes) == ("KIT!", 4)


async def test_inheritance(run: Run) -> None:
    """Children with and without a table of their own are stored, and come back as what they are."""
    await run(lambda session: session.add_all([Dog("Rex", tricks=3), Cat("Tom"), Animal("Bug")]))

    def kinds(session: Session) -> list[str]:
        found = session.scalars(select(Animal).order_by(Animal.id))
        return [f"{type(one).__name__} {one.name}" for one in found]

    def tricks(session: Session) -> int:
        return session.scalars(select(Dog)).one().tricks

    assert await run(kinds) == ["Dog Rex", "Cat Tom", "Animal Bug"]
    assert await run(tricks) == 3
    assert Cat("Tom").lives == 9
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'tricks'"):
        Dog("Rex")  # type: ignore[call-arg]  # wrong on purpose


async def test_collections(run: Run) -> None:
    """A set of children may have equal-looking members, and loses the very one that is removed from it."""

    def fill(session: Session) -> None:
        keeper = Keeper("Ann", animals={Cat("Tom"), Cat("Tom"), Dog("Rex", tricks=1)}, note="new")
        session.add(keeper)
        session.flush()
        twins = [animal for animal in keeper.animals if animal.name == "Tom"]
        assert len(twins) == 2
        keeper.animals.remove(twins[1])
        assert twins[1] not in keeper.animals
        assert twins[0] in keeper.animals

    def count(session: Session) -> list[int]:
        keeper = session.scalars(select(Keeper)).one()
        return [len(keeper.animals), session.scalars(select(func.count()).select_from(Animal)).one()]

    await run(fill)
    assert await run(count) == [2, 3]


async def test_a_lazy_relation_is_awaited() -> None:
    """In async code what is not loaded is asked for by ``awaitable_attrs``."""
    async with get_async_session() as session:
        session.add(Keeper("Ann", animals={Cat("Tom")}))
    async with get_async_session() as session:
        keeper = (await session.scalars(select(Keeper))).one()

        assert {animal.name for animal in await keeper.awaitable_attrs.animals} == {"Tom"}


@pytest.mark.parametrize(
    "zone", [UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))], ids=str
)
async def test_time_zones(run: Run, zone: timezone) -> None:
    """A moment is the same moment after its way through either driver, and knows its time zone."""
    moment = datetime(2024, 2, 29, 23, 59, 59, 123456, zone)
    await run(lambda session: session.add(Animal("Bug", born=moment)))

    with get_sync_session() as session:
        by_psycopg2 = session.scalars(select(Animal.born)).one()
    async with get_async_session() as other:
        by_asyncpg = (await other.scalars(select(Animal.born))).one()

    assert by_psycopg2 == by_asyncpg == moment
    assert by_psycopg2 is not None
    assert by_asyncpg is not None
    assert None not in {by_psycopg2.tzinfo, by_asyncpg.tzinfo}


async def test_repr_never_asks_the_database(run: Run) -> None:
    """It shows what is loaded: of an expired or detached object nothing, or what it was left with."""

    def store(session: Session) -> list[str]:
        session.add(keeper := Keeper("Ann"))
        session.flush()
        loaded = repr(keeper)
        session.expire(keeper, ["name"])
        partly = repr(keeper)
        session.expire(keeper)
        expired = repr(keeper)
        session.expunge(keeper)
        return [loaded, partly, expired, repr(keeper)]

    loaded, partly, expired, detached = await run(store)

    assert loaded.startswith("Keeper(id=")
    assert loaded.endswith(", name='Ann', note='')")
    assert "name" not in partly
    assert (expired, detached) == ("Keeper()", "Keeper()")
