"""Checked by mypy, never run: the values of the fixtures have the types that the package exports for annotations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any, assert_type
from unittest.mock import Mock

from fastapi import Depends, FastAPI
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.db import Base, OnCommitCall
from pytest_chatdify_db import (
    AssertMigrationsMatch,
    CaptureOnCommit,
    CeleryEager,
    Concurrency,
    CountQueries,
    Database,
    Listener,
    LiveServer,
    Notification,
    Outcome,
    OverrideDependencies,
    RunningServer,
    Seed,
    Server,
    Statement,
)
from pytest_chatdify_db.settings import Isolation


class Shop(FastAPI):
    """An application of a project's own class."""


def current_user() -> str:
    """Name a user."""
    return "ann"


CurrentUser = Annotated[str, Depends(current_user)]


def overrides(override_dependencies: OverrideDependencies, shop: Shop) -> None:
    """Give the application back as what it is; take callables, values, and keys of any kind."""
    assert_type(override_dependencies(shop, {current_user: "bob"}), Shop)
    override_dependencies(shop, {CurrentUser: lambda: "bob", current_user: None})
    override_dependencies(shop, {"current_user"})  # type: ignore[arg-type]  # a stand-in for both sorts of sessions
    assert_type(override_dependencies(app=shop, overrides={}), Shop)


def eager(celery_eager: CeleryEager, app: Any) -> None:
    """Take the switches by name."""
    celery_eager(app, propagates=False, store_results=True)
    celery_eager(celery_app=app)
    celery_eager(app, False)  # type: ignore[call-arg]  # wrong on purpose


def hooks(capture_on_commit: CaptureOnCommit) -> None:
    """List calls."""
    with capture_on_commit(execute=True) as calls:
        assert_type(calls, list[OnCommitCall])
        assert_type(calls[0].args, tuple[object, ...])


def server(live_server: LiveServer) -> None:
    """Serve any application."""
    assert_type(live_server(Mock(), root_path="/shop"), RunningServer)
    assert_type(live_server(app=Mock()).url, str)


def count(assert_num_queries: CountQueries) -> None:
    """Give the statements."""
    assert_type(assert_num_queries(1, each="request"), AbstractContextManager[list[Statement]])
    assert_num_queries(n=1)


def handle(chatdify_db: Database) -> None:
    """Tell of the database."""
    assert_type(chatdify_db.url, str)
    assert_type(chatdify_db.sync_url, str)
    assert_type(chatdify_db.async_url, str)
    assert_type(chatdify_db.isolation, Isolation)
    assert_type(chatdify_db.server, Server)
    assert_type(chatdify_db.statements, tuple[Statement, ...])


def locks(chatdify_db_concurrency: Concurrency) -> None:
    """Work with several sessions."""
    assert_type(chatdify_db_concurrency.session("SERIALIZABLE"), Session)
    with chatdify_db_concurrency.waits(lambda: 1) as outcome:
        assert_type(outcome, Outcome)
    assert_type(chatdify_db_concurrency.together(lambda: 1), list[Outcome])
    listener = chatdify_db_concurrency.listen("jobs")
    assert_type(listener, Listener)
    assert_type(listener.wait_for(1), list[Notification])
    with chatdify_db_concurrency.serialization_failure(), chatdify_db_concurrency.fails_with("40P01"):
        pass


def migrate(chatdify_db_assert_migrations_match: AssertMigrationsMatch) -> None:
    """Take a path, or none."""
    chatdify_db_assert_migrations_match()
    chatdify_db_assert_migrations_match("alembic.ini")


async def sessions(session: AsyncSession, sync_session: Session) -> None:
    """Complete what is typed after ``session.``: the fixtures' values are SQLAlchemy's own classes."""
    assert_type(session.sync_session, Session)
    assert_type(await session.run_sync(lambda inner: inner.is_active), bool)


def seams() -> tuple[Seed, Sequence[MetaData]]:
    """Return what a project's own seams may."""

    def store(session: Session) -> None:
        session.add(Base())

    return store, [Base.metadata]
