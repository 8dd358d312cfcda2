"""Who waits for whom on the server: asked on a connection of its own, since those that wait cannot answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pytest_chatdify_db.postgres.connection import Connection

_QUERY: Final = """
SELECT waiting.pid, holder.pid, holder.state, holder.application_name, pg_catalog.left(holder.query, 300)
  FROM pg_catalog.pg_stat_activity waiting
 CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS blocking(pid)
  JOIN pg_catalog.pg_stat_activity holder ON holder.pid = blocking.pid
 WHERE waiting.pid IN ({})
"""


@dataclass(frozen=True, slots=True)
class Wait:
    """A client's statement that waits for a lock.

    Args:
        client: The number of the connection that waits.
        holder: The number of the one that holds the lock; None if that is no connection of the sandbox.
        state: What the holder is doing, as ``pg_stat_activity`` says it: ``idle in transaction``, ``active``.
        name: The holder's application name.
        sql: The holder's last statement.
    """

    client: int
    holder: int | None
    state: str
    name: str
    sql: str


def find(monitor: Connection, clients: Mapping[int, int]) -> list[Wait]:
    """Return the waits among *clients*, whose numbers are given by their process ids on the server.

    Raises:
        ConnectError: The server has gone.
        ServerError: It refuses.
    """
    if not clients:
        return []
    rows = monitor.query(_QUERY.format(",".join(map(str, clients))))
    return [
        Wait(clients[int(waiting or 0)], clients.get(int(holder or 0)), state or "", name or "", sql or "")
        for waiting, holder, state, name, sql in rows
    ]
