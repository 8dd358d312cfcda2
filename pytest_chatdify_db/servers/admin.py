"""All SQL that administers a server: create, clone, seal and drop databases. Names are quoted here and nowhere else.

Each call takes a `Connection` to the maintenance database. `CREATE DATABASE` and `DROP DATABASE` refuse to run in a
transaction, and a connection of ours never opens one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from pytest_chatdify_db import naming
from pytest_chatdify_db.postgres.connection import Connection
from pytest_chatdify_db.postgres.errors import ServerError
from pytest_chatdify_db.postgres.quoting import quote_literal, quote_name

#: How files get from a template into a clone. ``file_copy`` is twice as fast where nothing is synced to a disk, and far
#: slower where it is: it costs two checkpoints.
Strategy = Literal["wal_log", "file_copy"]

#: SQLSTATE of "database ... already exists" and "database ... does not exist".
DUPLICATE_DATABASE: Final = "42P04"
UNKNOWN_DATABASE: Final = "3D000"

_STRATEGY_SINCE: Final = 15

#: PostgreSQL keeps a lock of this kind apart for each database, and a server has more than one to log in to.
_HELD_ELSEWHERE: Final = """
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND pid <> pg_backend_pid()
       AND classid::bigint = {high} AND objid::bigint = {low}
"""


def major_version(connection: Connection) -> int:
    """Return the server's major version."""
    digits = "".join(character if character.isdigit() else " " for character in connection.parameters["server_version"])
    return int(digits.split()[0])


def create_database(
    connection: Connection, name: str, *, template: str = "template0", strategy: Strategy | None = None
) -> None:
    """Create the database *name*.

    Args:
        connection: To the maintenance database.
        name: The new database.
        template: What it is a copy of; by default the pristine ``template0``, with the server's own locale.
        strategy: How files are copied; ignored before PostgreSQL 15, which knows one way only.

    Raises:
        ServerError: 42P04 if it exists.
    """
    choice = f" STRATEGY {strategy}" if strategy and major_version(connection) >= _STRATEGY_SINCE else ""
    connection.query(f"CREATE DATABASE {quote_name(name)} TEMPLATE {quote_name(template)}{choice}")


def drop_database(connection: Connection, name: str) -> None:
    """Drop the database *name*, sealed or not, and end the sessions on it; one that does not exist is no error."""
    try:
        if is_sealed(connection, name):
            connection.query(f"ALTER DATABASE {quote_name(name)} IS_TEMPLATE false")
        await_quiet(connection, name, terminate=True)
        connection.query(f"DROP DATABASE IF EXISTS {quote_name(name)} WITH (FORCE)")
    except ServerError as error:
        if error.sqlstate != UNKNOWN_DATABASE:
            raise


def rename_database(connection: Connection, name: str, new_name: str) -> None:
    """Rename a database that nobody is connected to.

    Raises:
        ServerError: 55006 if somebody is, after 5 s.
    """
    connection.query(f"ALTER DATABASE {quote_name(name)} RENAME TO {quote_name(new_name)}")


def await_quiet(connection: Connection, name: str, *, terminate: bool = False, patience: float = 2.0) -> bool:
    """Wait until nobody is connected to the database *name*; return whether that is so.

    A session ends a moment after its client has closed the connection. The commands that need a database of their own
    wait for that as well, but look only every 100 ms.

    Args:
        connection: To the maintenance database.
        name: The database.
        terminate: End the sessions instead of waiting for them to end.
        patience: Seconds to wait at most.
    """
    action = "pg_terminate_backend(pid)" if terminate else "pid"
    sql = f"SELECT {action} FROM pg_stat_activity WHERE datname = {quote_literal(name)}"  # noqa: S608 - the name is quoted
    return becomes_empty(connection, sql, patience)


def becomes_empty(connection: Connection, sql: str, patience: float) -> bool:
    """Ask *sql* until it yields no row any more; return False if it still does after *patience* seconds."""
    deadline = time.monotonic() + patience
    while connection.query(sql):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def sessions(connection: Connection, name: str) -> list[str]:
    """Describe the sessions on the database *name*, one line each: who, in which state, with which last statement."""
    rows = connection.query(
        "SELECT format('session %s of %s, %s: %s', pid, coalesce(nullif(application_name, ''), usename), "  # noqa: S608 - the name is quoted
        f"state, left(query, 80)) FROM pg_stat_activity WHERE datname = {quote_literal(name)} ORDER BY pid"
    )
    return [row[0] or "" for row in rows]


def exists(connection: Connection, name: str) -> bool:
    """Return whether there is a database *name*."""
    return bool(connection.query(f"SELECT FROM pg_database WHERE datname = {quote_literal(name)}"))


def seal(connection: Connection, name: str) -> None:
    """Close the database *name* to sessions and mark it as a template: what is cloned from it never changes again.

    A session on a template makes every clone of it fail, so nobody may have one.
    """
    connection.query(f"ALTER DATABASE {quote_name(name)} ALLOW_CONNECTIONS false IS_TEMPLATE true")


def is_sealed(connection: Connection, name: str) -> bool:
    """Return whether the database *name* exists and was sealed."""
    return bool(
        connection.query(
            f"SELECT FROM pg_database WHERE datname = {quote_literal(name)} AND datistemplate AND NOT datallowconn"
        )
    )


def has_unlogged_tables(connection: Connection) -> bool:
    """Return whether the database of *connection* has tables that PostgreSQL empties after a crash."""
    return bool(connection.query("SELECT FROM pg_class WHERE relpersistence = 'u' LIMIT 1"))


def databases(connection: Connection, prefix: str) -> list[str]:
    """Return the names of all databases that begin with *prefix*."""
    condition = f"starts_with(datname, {quote_literal(prefix)})"
    rows = connection.query(f"SELECT datname FROM pg_database WHERE {condition}")  # noqa: S608 - quoted
    return sorted(row[0] or "" for row in rows)


def comment(connection: Connection, name: str, text: str) -> None:
    """Write *text* beside the database *name*."""
    connection.query(f"COMMENT ON DATABASE {quote_name(name)} IS {quote_literal(text)}")


def comments(connection: Connection, prefix: str) -> dict[str, str]:
    """Return the comments of our role's databases whose names begin with *prefix*; those without one are left out."""
    condition = f"starts_with(datname, {quote_literal(prefix)})"
    rows = connection.query(
        "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database "  # noqa: S608 - quoted
        f"WHERE {condition} AND pg_get_userbyid(datdba) = current_user ORDER BY datname"
    )
    return {name or "": text for name, text in rows if text is not None}


def age(connection: Connection, name: str) -> float:
    """Return how many seconds ago the database *name* was made, by the oldest of its files.

    Raises:
        ServerError: The role may not read the server's files.
    """
    ((seconds,),) = connection.query(
        "SELECT extract(epoch FROM clock_timestamp() - (pg_stat_file(format('base/%s/PG_VERSION', oid))).modification) "  # noqa: S608 - the name is quoted
        f"FROM pg_database WHERE datname = {quote_literal(name)}"
    )
    return float(seconds or 0)


def clock(connection: Connection) -> float:
    """Return the server's time in seconds: the one clock that all runs on a server share."""
    ((seconds,),) = connection.query("SELECT extract(epoch FROM clock_timestamp())")
    return float(seconds or 0)


# -- Locks. One belongs to a session, and ends with it however it ends.


@contextmanager
def advisory_lock(connection: Connection, name: str) -> Iterator[None]:
    """Hold the lock *name* on this connection, waiting for it."""
    key = naming.lock_key(name)
    connection.query(f"SELECT pg_advisory_lock({key})")
    try:
        yield
    finally:
        if not connection.is_closed:
            connection.query(f"SELECT pg_advisory_unlock({key})")


@contextmanager
def attempted_lock(connection: Connection, name: str) -> Iterator[bool]:
    """Hold the lock *name* if nobody else does, and tell whether that is so; sessions on other databases count."""
    key = naming.lock_key(name)
    if connection.query(f"SELECT pg_try_advisory_lock({key})") != [("t",)]:
        yield False
        return
    try:
        yield connection.query(_HELD_ELSEWHERE.format(high=key >> 32 & 0xFFFFFFFF, low=key & 0xFFFFFFFF)) == []
    finally:
        if not connection.is_closed:
            connection.query(f"SELECT pg_advisory_unlock({key})")


def share_lock(connection: Connection, name: str) -> None:
    """Take a share of the lock *name* for as long as the connection lasts: nobody has it alone meanwhile."""
    connection.query(f"SELECT pg_advisory_lock_shared({naming.lock_key(name)})")
