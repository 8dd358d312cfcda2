"""A FastAPI dependency whose transaction is over before the response: one name, no options for the user to forget.

FastAPI runs the exit code of a generator dependency after the response, when a failed commit can no longer be told to
the client, unless the dependency is declared with ``scope="function"``. So what FastAPI sees here is a coroutine that
depends on such a generator. Called by hand, the same object is the plain async generator its users expect.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, overload

from sqlalchemy.ext.asyncio import AsyncSession

from app.db.errors import DatabaseError

__all__ = ["SessionDependency", "fastapi_signature"]


class SessionDependency:
    """A callable that is an async generator by hand, and a coroutine to FastAPI.

    Args:
        name: The name it is known by.
        module: The module it lives in.
        generator: Opens a session, yields it once, and finishes it.
        doc: Its docstring.
    """

    def __init__(self, name: str, module: str, generator: Callable[[], AsyncIterator[AsyncSession]], doc: str) -> None:
        self.__name__ = self.__qualname__ = name
        self.__module__ = module
        self.__doc__ = doc
        self._generator = generator
        # FastAPI awaits an object only if its __call__ is a coroutine function, and looks it up on the object;
        # calling the object goes to the class.
        vars(self)["__call__"] = self._given

    @overload
    def __call__(self) -> AsyncGenerator[AsyncSession]: ...
    @overload
    def __call__(self, session: AsyncSession) -> Coroutine[Any, Any, AsyncSession]: ...
    def __call__(self, session: AsyncSession | None = None) -> Any:
        """Return an async generator of one session; with *session*, as FastAPI calls it, that session."""
        return self._generator() if session is None else self._given(session)

    async def _given(self, session: AsyncSession) -> AsyncSession:
        return session

    def __getattr__(self, name: str) -> Any:
        # The only name made on demand: FastAPI is imported when it reads the signature, and not before.
        if name == "__signature__":
            return fastapi_signature(self.__name__, self._generator, AsyncSession)
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<dependency {self.__module__}.{self.__qualname__}>"


def fastapi_signature(
    name: str, generator: Callable[[], AsyncIterator[Any] | Iterator[Any]], kind: type
) -> inspect.Signature:
    """Return the signature that makes FastAPI run *generator* and pass its value on, finished before the response.

    Args:
        name: The name of the dependency, for messages.
        generator: Opens a session, yields it once, and finishes it.
        kind: The class of the session.

    Raises:
        DatabaseError: The installed FastAPI cannot finish a dependency before the response.
    """
    try:
        from fastapi import Depends
    except ModuleNotFoundError:
        return inspect.Signature(return_annotation=kind)
    try:
        default = Depends(generator, scope="function")
    except TypeError as error:
        raise DatabaseError(_FASTAPI_TOO_OLD.format(name=name)) from error
    parameter = inspect.Parameter("session", inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    return inspect.Signature([parameter], return_annotation=kind)


_FASTAPI_TOO_OLD = """\
Depends({name}) cannot commit before the response.
Cause: this FastAPI does not know the scope of a dependency.
Tried: Depends(..., scope="function"), which FastAPI has from 0.121 on.
To fix this, either:
  - upgrade it:  pip install "fastapi>=0.121"
  - open the session in the endpoint:  async with get_async_session() as session: ..."""
