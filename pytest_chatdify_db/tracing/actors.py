"""Who executes a statement: a request, a task, or nobody in particular; known by a context variable.

An actor that comes again, such as a second request to the same path, gets a number, so that each can be told apart and
has a budget of its own.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

TEST: Final = "test"

_current: Final[ContextVar[str | None]] = ContextVar("chatdify_db_actor", default=None)


def current() -> str:
    """Return the name of who acts here: the innermost `acting`, else the thread, if it is not the main one."""
    actor = _current.get()
    if actor is not None:
        return actor
    thread = threading.current_thread()
    return TEST if thread is threading.main_thread() else f"thread {thread.name}"


class Actors:
    """The actors of one test."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def acting(self, name: str) -> Iterator[None]:
        """Have all that is executed in the block, and in what it starts, be on behalf of *name*."""
        with self._lock:
            self._seen[name] += 1
            count = self._seen[name]
        token = _current.set(name if count == 1 else f"{name} (#{count})")
        try:
            yield
        finally:
            _current.reset(token)

    def begin_anew(self) -> None:
        """Forget who has acted: another test begins."""
        with self._lock:
            self._seen.clear()
