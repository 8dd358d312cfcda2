"""The border of a request."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from pytest_chatdify_db.tracing import actors, asgi
from pytest_chatdify_db.tracing.callers import Callers
from pytest_chatdify_db.tracing.statements import Line


class Application(Starlette):
    """An application that notes who acts, and what line is found when it executes something."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Line | None]] = []
        self.callers = Callers(Path(__file__).parent / "elsewhere")

    async def build(self, *_: Any) -> None:
        """Stand for all the middleware."""
        # Called from a library: no line of the project but those that have sent the request.
        eval("seen.append((current(), find(0)))", {"seen": self.seen, "current": actors.current, "find": self.find})

    def find(self, depth: int) -> Line | None:
        """Look for the line as an engine's event does, past this file."""
        self.callers._shown[__file__] = None
        return self.callers.find(depth)


def test_request() -> None:
    """A request acts under its name, and the line that has sent it is not its own."""
    application = Application()
    application.middleware_stack = application.build
    with ExitStack() as undo:
        known = actors.Actors()
        asgi.name_requests(known, undo)
        asgi.name_requests(known, undo)
        for kind in ("http", "websocket", "lifespan"):
            scope = {"type": kind, "path": "/a"} | ({"method": "GET"} if kind == "http" else {})
            asyncio.run(application(scope, _nothing, _nothing))  # type: ignore[arg-type]  # a stand-in

    assert application.seen == [("request GET /a", None), ("request WS /a", None), ("test", None)]


async def _nothing(*_: object) -> None:
    pass
