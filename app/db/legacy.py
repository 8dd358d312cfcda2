"""``SessionLocal`` as older code uses it: opened, committed, rolled back and closed by hand, or in a ``with`` block."""

from __future__ import annotations

from types import TracebackType

from sqlalchemy.orm import Session, sessionmaker

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


SessionLocal: sessionmaker[Session] = sessionmaker(class_=LegacySession)
