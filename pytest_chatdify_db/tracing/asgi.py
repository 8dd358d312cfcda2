"""The border of a request: what an ASGI application executes is on behalf of the request, and of no line outside it.

Known by name to `callers`: the search for the line behind a statement ends at a frame of this file.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pytest_chatdify_db.tracing.actors import Actors

_OWNER: Final = "chatdify_db_actors"


def name_requests(actors: Actors, undo: ExitStack) -> None:
    """Have each request act under its name, once an ASGI framework is there; more than once is fine.

    Args:
        actors: Who acts.
        undo: Takes it back when it is closed.
    """
    applications = sys.modules.get("starlette.applications")
    if applications is None or getattr(applications.Starlette.__call__, _OWNER, None) is actors:
        return
    from unittest import mock

    call = applications.Starlette.__call__

    async def acting(app: Any, scope: Any, receive: Any, send: Any) -> None:
        __tracebackhide__ = True
        if scope["type"] not in {"http", "websocket"}:
            await call(app, scope, receive, send)
            return
        method = scope.get("method", "WS")
        with actors.acting(f"request {method} {scope.get('path', '')}"):
            await call(app, scope, receive, send)

    setattr(acting, _OWNER, actors)
    undo.enter_context(mock.patch.object(applications.Starlette, "__call__", acting))
