"""get_session as others see it: an async generator by hand, one awaitable dependency to FastAPI."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.db import DatabaseError, get_readonly_session, get_session
from app.db.dependencies import SessionDependency, fastapi_signature
from app.db.legacy import SessionLocal


def test_by_hand() -> None:
    """Calling it gives an async generator; its name, module and documentation are those of a function."""
    generator = get_session()

    assert inspect.isasyncgen(generator)
    assert get_session.__name__ == "get_session"
    assert get_session.__module__ == "app.db.session"
    assert (get_session.__doc__ or "").startswith("Give each request an ``AsyncSession``")
    assert repr(get_session) == "<dependency app.db.session.get_session>"
    assert asynccontextmanager(get_session).__name__ == "get_session"
    assert not hasattr(get_session, "nothing_of_the_kind")


@pytest.mark.parametrize("dependency", [get_session, get_readonly_session])
def test_to_fastapi(dependency: SessionDependency) -> None:
    """FastAPI reads one parameter, a session whose generator is finished before the response."""
    pytest.importorskip("fastapi")
    parameter = inspect.signature(dependency).parameters["session"]

    assert parameter.annotation is AsyncSession
    assert parameter.default.scope == "function"
    assert inspect.isasyncgenfunction(parameter.default.dependency)


def test_legacy_factory_to_fastapi() -> None:
    """The older factory is read the same way, with a synchronous generator."""
    pytest.importorskip("fastapi")
    parameter = inspect.signature(SessionLocal).parameters["session"]

    assert parameter.annotation is Session
    assert inspect.isgeneratorfunction(parameter.default.dependency)
    assert not hasattr(SessionLocal, "nothing_of_the_kind")


def test_without_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where FastAPI is not installed, the signature has no parameters."""
    monkeypatch.setitem(sys.modules, "fastapi", None)

    assert list(inspect.signature(get_session).parameters) == []


def test_an_old_fastapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FastAPI that would commit after the response is refused, with the command that helps."""
    fastapi = pytest.importorskip("fastapi")

    def depends(dependency: object) -> object:
        return dependency

    async def generator() -> AsyncIterator[AsyncSession]:
        yield AsyncSession()

    monkeypatch.setattr(fastapi, "Depends", depends)
    with pytest.raises(DatabaseError) as caught:
        fastapi_signature("get_session", generator, AsyncSession)

    assert str(caught.value) == (
        "Depends(get_session) cannot commit before the response.\n"
        "Cause: this FastAPI does not know the scope of a dependency.\n"
        'Tried: Depends(..., scope="function"), which FastAPI has from 0.121 on.\n'
        "To fix this, either:\n"
        '  - upgrade it:  pip install "fastapi>=0.121"\n'
        "  - open the session in the endpoint:  async with get_async_session() as session: ..."
    )
