"""What the sandbox noticed, as values that both of its sides know.

The rule: nothing else is imported here. The test run reads reports, and does not need what it takes to write them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DirtyRead:
    """One client has read what another has not committed.

    Args:
        reader: The number of the connection that read.
        writer: The number of the one that had written.
        read: The statement that read.
        wrote: The statement that had written.
        table: The table.
    """

    reader: int
    writer: int
    read: str
    wrote: str
    table: str


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that was left.

    Args:
        client: The number of the connection.
        label: How messages call the connection.
        what: ``LISTEN orders``, ``advisory lock``, ``temporary table names``.
        sql: The statement that made it.
    """

    client: int
    label: str
    what: str
    sql: str


@dataclass(frozen=True, slots=True)
class Executed:
    """A statement that a client has executed.

    Args:
        client: The number of the connection, which drivers know as its process id.
        application: The connection's application name, which may be empty.
        sql: The beginning of its text.
        has_failed: Whether it has failed.
    """

    client: int
    application: str
    sql: str
    has_failed: bool
