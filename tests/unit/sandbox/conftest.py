"""A sandbox without sockets on a server that answers by a script, for each test that asks."""

from __future__ import annotations

import pytest

from .table import ScriptedServer, Table


@pytest.fixture
def server() -> ScriptedServer:
    """A server that answers with success where no test says otherwise."""
    return ScriptedServer()


@pytest.fixture
def table(server: ScriptedServer) -> Table:
    """A sandbox on that server, in a test."""
    table = Table(server)
    table.ask(table.core.push("the test"))
    return table
