"""A test's own database made like its template again: what the test has written is deleted, nothing else is touched.

The rule: what cannot be told, or undone, for certain is not restored, and the database has to be replaced. So it is if
the schema has changed, a table that the template has rows in, or what the server keeps about the database as a whole.

The server counts what is written to each table, catalogs included, and sessions have handed in their counts when they
have ended; since PostgreSQL 15 nothing gets lost on that way. To look into the tables instead would take longer than to
clone the database: a session that has just begun knows none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.servers import admin

_SINCE: Final = 15

#: Seconds that sessions may take to end.
_PATIENCE: Final = 2.0

_NO_TRIGGERS: Final = "SET session_replication_role = replica"

_RELATIONS: Final = """
    SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relkind
      FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE c.relkind IN ('r', 'S') AND c.relpersistence <> 't'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
"""

# The views of statistics say the same, and take some ms to plan in a session that has just begun.
_END_OTHERS: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL)
     WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
"""

#: The tables that were written to, catalogs included, and the sequences that were looked at.
_TOUCHED: Final = """
    SELECT oid FROM pg_class WHERE NOT relisshared AND CASE relkind
      WHEN 'r' THEN pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid)
                    + pg_stat_get_tuples_deleted(oid) > 0
      WHEN 'S' THEN pg_stat_get_blocks_fetched(oid) > 0
      ELSE false END
"""

#: Yields a row if the database as a whole has been changed, or what was written to it may not have been counted.
_IS_CHANGED: Final = """
    SELECT FROM pg_database d WHERE datname = current_database()
       AND (datacl IS NOT NULL OR datconnlimit <> -1 OR pg_get_userbyid(datdba) <> current_user
            OR EXISTS (SELECT FROM pg_db_role_setting WHERE setdatabase = d.oid)
            OR EXISTS (SELECT FROM pg_prepared_xact() WHERE dbid = d.oid)
            OR EXISTS (SELECT FROM pg_shseclabel WHERE classoid = 'pg_database'::regclass AND objoid = d.oid)
            OR pg_stat_get_db_stat_reset_time(d.oid) IS NOT NULL
            OR current_setting('track_counts') <> 'on')
"""

#: The comment of the database, which on a server that outlives the run is the plugin's own, and the same for each copy.
_COMMENT: Final = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()"


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the copies of one template have in common; they have the same object ids.

    Args:
        empty: The quoted names of the tables without rows, by their ids.
        sequences: The last value of each sequence, and whether it was taken, by its id.
        comment: The comment of the database.
    """

    empty: Mapping[str, str]
    sequences: Mapping[str, str]
    comment: str | None = None

    @classmethod
    def read(cls, address: Address) -> Baseline | None:
        """Take it from the copy at *address*, in which nothing was done yet; None if the server does not count well.

        Raises:
            ServerError: The role may not do without triggers.
            ConnectError: The server is gone.
        """
        with connect(address) as connection:
            connection.query(_NO_TRIGGERS)
            if admin.major_version(connection) < _SINCE or connection.query(f"{_TOUCHED}; {_IS_CHANGED}"):
                return None
            relations = [(oid or "", name or "", kind) for oid, name, kind in connection.query(_RELATIONS)]
            empty = _without_rows(connection, {oid: name for oid, name, kind in relations if kind == "r"})
            sequences = _states(connection, {oid: name for oid, name, kind in relations if kind == "S"})
            return cls(empty, sequences, _comment(connection))

    def restore(self, address: Address) -> bool:
        """Make the copy at *address* like the template, end the sessions on it; return whether that was possible."""
        try:
            with connect(address) as connection:
                if not admin.becomes_empty(connection, _END_OTHERS, _PATIENCE) or connection.query(_IS_CHANGED):
                    return False
                if _comment(connection) != self.comment:
                    return False
                touched = {oid or "" for (oid,) in connection.query(_TOUCHED)}
                if not touched <= self.empty.keys() | self.sequences.keys():
                    return False
                # Without triggers, those of foreign keys among them, and so in any order.
                commands = [_NO_TRIGGERS]
                for oid in touched:
                    if oid in self.empty:
                        commands.append(f"DELETE FROM ONLY {self.empty[oid]}")  # noqa: S608 - quoted
                    else:
                        commands.append(f"SELECT setval({oid}::oid, {self.sequences[oid]})")
                connection.query("; ".join(commands))
        except (ConnectError, ServerError):
            return False
        return True


def _comment(connection: Connection) -> str | None:
    ((comment,),) = connection.query(_COMMENT)
    return comment


def _without_rows(connection: Connection, tables: Mapping[str, str]) -> dict[str, str]:
    """Return those of *tables*, names by ids, that have no rows."""
    asked = [f"SELECT {oid} WHERE NOT EXISTS (SELECT FROM ONLY {name})" for oid, name in tables.items()]  # noqa: S608 - quoted
    found = connection.query(" UNION ALL ".join(asked)) if asked else []
    return {oid or "": tables[oid or ""] for (oid,) in found}


def _states(connection: Connection, sequences: Mapping[str, str]) -> dict[str, str]:
    """Return, for each of *sequences*, names by ids, what sets it to where it is now."""
    asked = [f"SELECT {oid}, last_value, is_called FROM {name}" for oid, name in sequences.items()]  # noqa: S608 - quoted
    found = connection.query(" UNION ALL ".join(asked)) if asked else []
    return {oid or "": f"{last}, {'true' if called == 't' else 'false'}" for oid, last, called in found}
