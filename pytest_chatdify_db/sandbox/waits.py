"""Who waits for whom on the server: asked on a connection of its own, since those that wait cannot answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from pytest_chatdify_db.postgres.connection import Connection

_QUERY: Final = """
SELECT waiting.pid, holder.pid, holder.state, holder.application_name, pg_catalog.left(holder.query, 300),
       pg_catalog.left(waiting.query, 300), waiting.wait_event,
       holder.wait_event IS NOT DISTINCT FROM 'ClientRead',
       EXISTS (SELECT FROM pg_catalog.pg_settings
                WHERE name IN ('lock_timeout', 'statement_timeout', 'transaction_timeout',
                               'idle_in_transaction_session_timeout')
                  AND setting <> '0')
  FROM pg_catalog.pg_stat_activity waiting
 CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS blocking(pid)
  JOIN pg_catalog.pg_stat_activity holder ON holder.pid = blocking.pid
 WHERE waiting.pid IN ({}) AND waiting.wait_event_type = 'Lock'
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
        waiting_sql: The statement that waits.
        lock: What kind of lock it is, as the server names it: ``transactionid``, ``relation``, ``advisory``...
        is_clients_turn: Whether the holder's session waits for its own client to send something.
        has_limit: Whether a timeout of the server may end the wait.
    """

    client: int
    holder: int | None
    state: str
    name: str
    sql: str
    waiting_sql: str = ""
    lock: str = ""
    is_clients_turn: bool = False
    has_limit: bool = False


def find(monitor: Connection, clients: Mapping[int, int], limited: Collection[int] = ()) -> list[Wait]:
    """Return the waits among *clients*.

    Args:
        monitor: A connection that nobody else uses.
        clients: Their numbers by their process ids on the server.
        limited: The numbers of those that have set timeouts of their own.

    Raises:
        ConnectError: The server has gone.
        ServerError: It refuses.
    """
    if not clients:
        return []
    rows = monitor.query(_QUERY.format(",".join(map(str, clients))))
    return [_wait(row, clients, limited) for row in rows]


def _wait(row: tuple[str | None, ...], clients: Mapping[int, int], limited: Collection[int]) -> Wait:
    waiting, holder, state, name, sql, waiting_sql, lock, is_clients_turn, has_limit = (each or "" for each in row)
    pair = clients[int(waiting)], clients.get(int(holder))
    return Wait(
        *pair,
        state,
        name,
        sql,
        waiting_sql,
        lock,
        is_clients_turn == "t",
        has_limit == "t" or any(number in limited for number in pair),
    )
