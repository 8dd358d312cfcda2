"""Cursors and portals: whose each one is and when it ends, in a session where all clients' share one name space.

The rule: a name goes to the server as the client has it, since a driver may say it in SQL too; only where another
client has a cursor of that name does it get the client's prefix. Where another client's rollback has closed a cursor,
an empty one stands in its place, so that its name stays taken and can be closed, and reading it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

from pytest_chatdify_db.postgres.quoting import quote_name
from pytest_chatdify_db.sandbox.client import Client, Cursor
from pytest_chatdify_db.sandbox.closing import Closing
from pytest_chatdify_db.sandbox.lexer import NAME_LENGTH


class Cursors:
    """The open cursors of the session, by their names on the server."""

    def __init__(self, closing: Closing) -> None:
        self._owners: dict[bytes, int] = {}
        self._closing = closing

    def server_name(self, client: Client, name: bytes) -> bytes:
        """Return what the client's cursor *name* is called on the server, or would be if it were opened now."""
        known = name[:NAME_LENGTH]
        cursor = client.cursors.get(known)
        if cursor is not None:
            return name if cursor.server_name == known else cursor.server_name
        is_free = self._owners.get(known, client.number) == client.number and (name.isascii() or client.is_utf8)
        return name if is_free else client.server_name(name)

    def opened(self, client: Client, name: bytes, *, is_holdable: bool = False, is_private: bool = False) -> None:
        """Note that the client has opened a cursor.

        Args:
            client: Who.
            name: What the client calls it.
            is_holdable: Whether it is to outlive its transaction.
            is_private: Whether it has a name of its own on the server in any case: the unnamed portal that is to live
                on, which the server itself would close with the next query of anybody.
        """
        transaction = client.transaction
        depth = len(transaction.levels) - 1 if transaction is not None else 0
        server_name = client.prefix if is_private else self.server_name(client, name)
        client.cursors[name] = Cursor(server_name, depth, is_holdable)
        self._owners[server_name] = client.number

    def closed(self, client: Client, name: bytes) -> None:
        """Note that the client's cursor is closed."""
        cursor = client.cursors.pop(name, None)
        if cursor is not None:
            self._owners.pop(cursor.server_name, None)

    def close(self, client: Client, names: Iterable[bytes]) -> None:
        """Have the server close cursors of the client."""
        for name in list(names):
            self._closing.portal(client.cursors[name].server_name)
            self.closed(client, name)

    def close_unnamed(self, client: Client) -> None:
        """Have the server close the client's unnamed portal, by whichever name it has it."""
        self._closing.portal(self.server_name(client, b""))
        self.closed(client, b"")

    @staticmethod
    def undone(clients: Iterable[Client], since: int, by: Client) -> list[tuple[Client, Cursor]]:
        """Note, and return, what others opened after the tick *since* and a rollback of the client *by* has closed."""
        lost = [
            (client, cursor)
            for client in clients
            if client is not by
            for cursor in client.cursors.values()
            if cursor.tick > since
        ]
        for _, cursor in lost:
            cursor.undone_by = cursor.undone_by or by.label
        return lost

    def end_transaction(self, client: Client, *, commits: bool) -> None:
        """Close what ends with the client's transaction."""
        ending = []
        for name, cursor in client.cursors.items():
            cursor.is_held |= commits and cursor.is_holdable
            if not cursor.is_held:
                ending.append(name)
        self.close(client, ending)

    def roll_back_to(self, client: Client, index: int) -> None:
        """Close what was opened since the client's savepoint of that index."""
        self.close(client, [name for name, c in client.cursors.items() if c.depth >= index and not c.is_held])

    @staticmethod
    def release(client: Client, index: int) -> None:
        """Let what was opened since the client's savepoint of that index belong to the level around it."""
        for cursor in client.cursors.values():
            cursor.depth = min(cursor.depth, index - 1)

    def close_everybodys(self, clients: Iterable[Client]) -> None:
        """Close all cursors of all clients."""
        for client in clients:
            self.close(client, client.cursors)


def placeholder(cursor: Cursor) -> str:
    """Return the SQL that opens an empty cursor in the place of one that was closed under its client's feet."""
    return f"DECLARE {quote_name(cursor.server_name.decode('utf-8', 'replace'))} CURSOR FOR SELECT"
