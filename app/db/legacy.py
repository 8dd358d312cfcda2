"""``SessionLocal`` as older code uses it: opened, committed, rolled back and closed by hand, or in a ``with`` block."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.db.dependencies import fastapi_signature
from app.db.hooks import has_calls
from app.db.session import LazySession

__all__ = ["SessionLocal"]


class LegacySession(LazySession):
    """A session that stores what is left when its ``with`` block ends normally.

    Everything else is a plain ``Session``: objects expire at a commit, and a closed session may be used again.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            # Inactive: a flush failed and its error was swallowed. There is nothing to store; closing rolls back.
            if kind is None and self.is_active and (self.in_transaction() or has_calls(self)):
                self.commit()
        finally:
            super().__exit__(kind, error, traceback)


class LegacySessionmaker(sessionmaker[Session]):
    """A sessionmaker that is a FastAPI dependency too: ``Depends(SessionLocal)`` commits before the response."""

    def __call__(self, *, session: Session | None = None, **options: Any) -> Session:
        """Return a new session; with *session*, as FastAPI calls it, that session."""
        return super().__call__(**options) if session is None else session

    def __getattr__(self, name: str) -> Any:
        # The only name made on demand: FastAPI is imported when it reads the signature, and not before.
        if name == "__signature__":
            return fastapi_signature("SessionLocal", _request_session, Session)
        raise AttributeError(f"{self!r} has no attribute {name!r}")


SessionLocal = LegacySessionmaker(class_=LegacySession)


def _request_session() -> Iterator[Session]:
    with SessionLocal() as session:
        yield session
