"""Databases for the tests that have one of their own: cloned ahead while tests run, used again where that is possible.

The rule: a test never waits for what could have been done before it or can be done after it. One thread clones, makes
what a test has changed like the template again, or else drops it; how many databases it keeps ready follows from
demand, and is bounded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final

from pytest_chatdify_db.databases import templates
from pytest_chatdify_db.databases.restoring import Baseline
from pytest_chatdify_db.errors import TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.servers.base import Server

#: How many clones are kept ready at most. Each is as large as the template.
MOST: Final = 4


class Spares:
    """Clones of a template, for one worker.

    Args:
        server: Where.
        template: What they are clones of.
        new_name: Returns a new name for each.
    """

    def __init__(self, server: Server, template: str, new_name: Callable[[], str]) -> None:
        self._server = server
        self.template = template
        self._new_name = new_name
        self._ready: deque[Address] = deque()
        self._changed: deque[Address] = deque()
        self._used: deque[str] = deque()
        self._baseline: Baseline | None = None
        self._is_read = False
        self._wanted = 1
        self._is_making = False
        self._is_closed = False
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def take(self) -> Address:
        """Return a database that is like the template.

        Raises:
            TemplateFailed: The server refuses to make one.
        """
        with self._change:
            self._start()
            if not self._ready and self._is_coming:
                self._wanted = min(self._wanted + 1, MOST)
                self._change.wait_for(lambda: self._ready or not self._is_coming)
            taken = self._ready.popleft() if self._ready else None
            self._change.notify_all()
        return taken or self._clone()

    @property
    def _is_coming(self) -> bool:
        return bool(self._is_making or self._changed)

    def give_back(self, database: Address, *, changed: bool) -> None:
        """Take a database back, to be used again: if it was *changed*, once it is like the template again."""
        with self._change:
            if changed:
                self._changed.append(database)
            else:
                self._ready.appendleft(database)
            self._change.notify_all()

    def discard(self, names: Iterable[str]) -> None:
        """Have the databases *names*, which nobody uses any more, dropped while tests run."""
        with self._change:
            self._start()
            self._used.extend(names)
            self._change.notify_all()

    def retire(self) -> list[str]:
        """End the thread, and return the names of the databases that are left."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join()
        names = [*(database.database for database in (*self._ready, *self._changed)), *self._used]
        self._ready.clear()
        self._changed.clear()
        self._used.clear()
        return names

    def close(self) -> None:
        """End the thread, and drop the databases where the server outlives the run."""
        for name in self.retire():
            if not self._server.is_managed:
                templates.drop(self._server, name)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="chatdify-db-spares", daemon=True)
            self._thread.start()

    def _clone(self) -> Address:
        return templates.clone(self._server, self.template, self._new_name())

    def _work(self) -> None:
        while (task := self._next()) is not None:
            made: Address | None = None
            try:
                made = task()
            except TemplateFailed:
                # Whoever takes the next one tries by itself, and gets the error where it can be reported.
                with self._change:
                    self._wanted = 0
            with self._change:
                self._is_making = False
                if made is not None:
                    self._ready.append(made)
                self._change.notify_all()

    def _next(self) -> Callable[[], Address | None] | None:
        """Wait for something to do, which may make a database ready; return None once nobody needs any more."""
        with self._change:
            self._change.wait_for(lambda: self._is_closed or self._changed or self._used or self._lacks)
            if self._is_closed:
                return None
            self._is_making = bool(self._changed) or self._lacks
            if self._changed:
                return partial(self._restored, self._changed.popleft())
            return self._new if self._lacks else partial(self._drop, self._used.popleft())

    @property
    def _lacks(self) -> bool:
        return len(self._ready) < self._wanted

    def _new(self) -> Address:
        made = self._clone()
        if not self._is_read:
            self._is_read = True
            with suppress(ConnectError, ServerError):
                self._baseline = Baseline.read(made)
        return made

    def _restored(self, database: Address) -> Address | None:
        """Return *database* if it is like the template again; else it is dropped later."""
        if self._baseline is not None and len(self._ready) < MOST and self._baseline.restore(database):
            return database
        with self._change:
            self._used.append(database.database)
        return None

    def _drop(self, name: str) -> None:
        templates.drop(self._server, name)
