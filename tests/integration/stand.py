"""A server of a run of its own, for tests of what stands on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_chatdify_db import servers
from pytest_chatdify_db.servers.base import Server
from pytest_chatdify_db.servers.run import Run


@contextmanager
def running_server() -> Iterator[tuple[Server, Run]]:
    """Start an embedded server and give it with its run, which is closed also if the start fails."""
    run = Run.create()
    try:
        yield servers.start("embedded", image="", run=run, progress=lambda line: None), run
    finally:
        run.close()
