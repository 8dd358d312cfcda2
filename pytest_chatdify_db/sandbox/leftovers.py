"""What a frame leaves with a connection that COMMIT and ROLLBACK do not end: LISTEN, advisory locks, temporary tables.

The rule: a statement makes a connection suspect, and only what the server still has at the end is reported.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pytest_chatdify_db.sandbox import temporary
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.reports import Leftover
from pytest_chatdify_db.sandbox.statement import Kind, Statement

LOCK: Final = "advisory lock"
_TABLE: Final = "temporary table "
_OWN_TABLES: Final = (
    "FROM pg_catalog.pg_class"
    " WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() AND relkind = 'r'"
)
_OWN_LOCKS: Final = (
    "FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"
)
#: Asked before the rollback, which removes the tables.
TABLES: Final = f"SELECT relname {_OWN_TABLES}"
#: Asked after it: the locks that are still there are the session's own.
LOCKS: Final = f"SELECT locktype {_OWN_LOCKS}"
#: Asked of a session that a client has for itself, between transactions: all of it, as messages call it.
OF_A_SESSION: Final = f"""
SELECT 'LISTEN ' OPERATOR(pg_catalog.||) channel FROM pg_catalog.pg_listening_channels() AS channel
 UNION SELECT '{LOCK}' {_OWN_LOCKS}
 UNION SELECT '{_TABLE}' OPERATOR(pg_catalog.||) relname {_OWN_TABLES}
 ORDER BY 1
"""  # noqa: S608 - constants of this module


def may_leave(statement: Statement) -> str:
    """Return what *statement* may leave with its connection, as messages call it; empty for nothing."""
    if statement.kind is Kind.LISTEN:
        return f"LISTEN {statement.name}"
    if any("advisory" in name and "xact" not in name and "unlock" not in name for name in statement.calls):
        return LOCK
    if statement.kind in {Kind.WRITE, Kind.EXECUTE} and (made := temporary.made(statement)) is not None:
        return f"{_TABLE}{made.name}"
    return ""


@dataclass(frozen=True, slots=True)
class _Suspect:
    client: int
    name: str  # of the table; empty for a lock
    sql: str
    depth: int


class Leftovers:
    """What clients may have left."""

    def __init__(self) -> None:
        self._suspects: list[_Suspect] = []

    def note(self, client: Client, statement: Statement, depth: int) -> None:
        """Take note of what *client* has executed in the frame that is the *depth*-th."""
        left = may_leave(statement)
        if left and statement.kind is not Kind.LISTEN:
            name = left.removeprefix(_TABLE) if left != LOCK else ""
            self._suspects.append(_Suspect(client.number, name, statement.text, depth))

    @property
    def has_any(self) -> bool:
        """Whether there may be some."""
        return bool(self._suspects)

    def has_tables(self, depth: int) -> bool:
        """Return whether there may be temporary tables from above *depth*."""
        return any(each.name and each.depth > depth for each in self._suspects)

    def renumber(self, old: int, new: int) -> None:
        """Have what was noted in the *old*-th frame count for the *new*-th."""
        self._suspects = [replace(each, depth=new) if each.depth == old else each for each in self._suspects]

    def take(
        self, clients: Mapping[int, Client], depth: int, tables: Collection[str], *, has_locks: bool
    ) -> list[Leftover]:
        """Return what is left from above *depth*, and forget it.

        Args:
            clients: Those that are connected and in no transaction; with the others it goes.
            depth: How many frames are open.
            tables: The temporary tables that the server has.
            has_locks: Whether the server has an advisory lock of the session.
        """
        ended = [each for each in self._suspects if each.depth > depth]
        self._suspects = [each for each in self._suspects if each.depth <= depth]
        found: dict[tuple[int, str], Leftover] = {}
        for each in ended:
            is_there = each.name in tables if each.name else has_locks
            if is_there and each.client in clients:
                what = f"{_TABLE}{each.name}" if each.name else LOCK
                found[each.client, what] = Leftover(each.client, clients[each.client].label, what, each.sql[:500])
        return list(found.values())


def listening(clients: Iterable[Client]) -> dict[int, frozenset[str]]:
    """Return which channels each of *clients* listens to."""
    return {client.number: frozenset(client.channels) for client in clients if client.channels}


def new_channels(clients: Iterable[Client], before: Mapping[int, frozenset[str]]) -> list[Leftover]:
    """Return what *clients* listen to and did not *before*."""
    return [
        Leftover(client.number, client.label, f"LISTEN {channel}", f"LISTEN {channel}")
        for client in clients
        for channel in sorted(client.channels - before.get(client.number, frozenset()))
    ]
