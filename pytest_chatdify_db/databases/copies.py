"""The rows of one database copied into another that is made from the same template.

The rule: what a client of the source sees the target has afterwards, or the answer tells what is missing. Rows and the
positions of sequences are copied; what was created, altered or dropped is not. Copies of a template have the same
object ids, and the same rows in their catalogs: this is how changes are told.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_chatdify_db.errors import CopyFailed

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Session  # noqa: N812 - the driver calls its class in lower case
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - likewise

    from pytest_chatdify_db.postgres.address import Address

_MOST_IN_MEMORY: Final = 8 << 20

#: So that text means the same value on both sides, as `pg_dump` does; rows that a policy hides are an error.
_EXACT: Final = "SET DateStyle = ISO; SET IntervalStyle = postgres; SET extra_float_digits = 3; SET row_security = off"

# What was counted may have been rolled back since: a table too many is copied, never one too few. TRUNCATE is not
# counted, and gives a table another file.
_TABLES: Final = """
    SELECT c.oid, c.relkind, format('%I.%I', n.nspname, c.relname), pg_relation_filenode(c.oid),
           current_setting('track_counts') = 'off' OR coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0) > 0,
           (SELECT string_agg(format('%I %s', attname, atttypid), ',' ORDER BY attnum) FROM pg_attribute AS a
             WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
      FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
      LEFT JOIN pg_stat_xact_all_tables AS s ON s.relid = c.oid
     WHERE relkind IN ('r', 'm') AND c.oid >= 16384 AND relpersistence <> 't' AND n.nspname !~ '^pg_toast'
     ORDER BY c.oid
"""
_SEQUENCES: Final = """
    SELECT s.seqrelid, coalesce(v.last, s.seqstart), v.last IS NOT NULL
      FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid AND relpersistence <> 't',
           pg_sequence_last_value(s.seqrelid) AS v(last)
"""
# TRUNCATE writes the row of a table in pg_class anew, so that its columns are compared; elsewhere the row's origin.
_OBJECTS: Final = """
    WITH relations AS (
      SELECT * FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't' AND relkind <> 't'
         AND relnamespace <> 'pg_toast'::regnamespace
    ), objects AS (
      SELECT 'pg_class'::regclass AS class, oid AS object, 0 AS part,
             concat_ws(' ', relname, relnamespace, relowner, relkind, relpersistence, relrowsecurity,
                       relforcerowsecurity, reloptions, relacl, pg_get_expr(relpartbound, oid)) AS origin
        FROM relations
       UNION ALL
      SELECT 'pg_class'::regclass, attrelid, attnum, a.xmin::text FROM pg_attribute AS a
        JOIN relations AS r ON r.oid = attrelid AND relkind <> 'i' WHERE attnum > 0 AND NOT attisdropped
       UNION ALL
      SELECT 'pg_class'::regclass, seqrelid, -1, s.xmin::text
        FROM pg_sequence AS s JOIN relations AS r ON r.oid = seqrelid
       UNION ALL
      SELECT 'pg_attrdef'::regclass, d.oid, 0, d.xmin::text FROM pg_attrdef AS d JOIN relations AS r ON r.oid = adrelid
       UNION ALL
      SELECT 'pg_trigger'::regclass, t.oid, 0, t.xmin::text FROM pg_trigger AS t JOIN relations AS r ON r.oid = tgrelid
       UNION ALL
      SELECT 'pg_rewrite'::regclass, w.oid, 0, w.xmin::text FROM pg_rewrite AS w JOIN relations AS r ON r.oid = ev_class
       UNION ALL
      SELECT 'pg_policy'::regclass, p.oid, 0, p.xmin::text FROM pg_policy AS p JOIN relations AS r ON r.oid = polrelid
       UNION ALL
      SELECT 'pg_constraint'::regclass, oid, 0, xmin::text FROM pg_constraint WHERE connamespace <> pg_my_temp_schema()
       UNION ALL
      SELECT 'pg_type'::regclass, oid, 0, xmin::text FROM pg_type
       WHERE typnamespace <> pg_my_temp_schema() AND typtype <> 'c' AND typcategory <> 'A'
       UNION ALL
      SELECT 'pg_type'::regclass, enumtypid, 0, string_agg(concat(oid, ' ', xmin), ',' ORDER BY oid)
        FROM pg_enum GROUP BY enumtypid
       UNION ALL
      SELECT 'pg_proc'::regclass, oid, 0, xmin::text FROM pg_proc
       UNION ALL
      SELECT 'pg_namespace'::regclass, oid, 0, xmin::text FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
       UNION ALL
      SELECT 'pg_extension'::regclass, oid, 0, xmin::text FROM pg_extension
       UNION ALL
      SELECT 'pg_largeobject'::regclass, oid, 0, xmin::text FROM pg_largeobject_metadata
    )
    SELECT class::oid, object, part, origin FROM objects WHERE object >= 16384
"""
_FOREIGN_KEYS: Final = """
    SELECT conrelid, conrelid::regclass::text, quote_ident(conname), confrelid,
           CASE WHEN condeferred THEN 'DEFERRABLE INITIALLY DEFERRED'
                WHEN condeferrable THEN 'DEFERRABLE INITIALLY IMMEDIATE' ELSE 'NOT DEFERRABLE' END
      FROM pg_constraint WHERE contype = 'f' AND conparentid = 0
"""


@dataclass(frozen=True, slots=True)
class Copied:
    """What came of a copy.

    Args:
        tables: The tables, with their schemas, that have the source's rows now.
        missing: What the source has otherwise, as PostgreSQL describes it (``table public.x``, ``index y``): it was
            created, altered or dropped since the template was made, and the target does not have it. So are new
            large objects.
    """

    tables: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    oid: int
    kind: str
    name: str
    file: int
    is_written: bool
    shape: str


def copy_rows(source: Address, target: Address) -> Copied:
    """Give *target* the rows that a client of *source* sees, and the positions of its sequences.

    Args:
        source: The sandbox, while all clients share its session: the server's tables are compared with what that
            session has written.
        target: A database of the server itself, made from the same template, in which nothing was changed.

    Raises:
        CopyFailed: The server refuses; *target* is as it was.
    """
    from psycopg2 import Error

    try:
        with _session(source) as reader, _session(target) as writer:
            reader.autocommit = True
            missing = _differences(reader.cursor(), writer.cursor())
            tables = _written(reader.cursor(), writer.cursor())
            _replace(reader.cursor(), writer.cursor(), tables)
            _set_sequences(reader.cursor(), writer.cursor())
            writer.commit()
    except Error as error:
        raise CopyFailed.refused(str(target), str(error).strip()) from error
    return Copied(tuple(table.name for table in tables), missing)


@contextmanager
def _session(address: Address) -> Iterator[Session]:
    import psycopg2

    # By this name the sandbox knows a connection that is not the application's.
    connection = psycopg2.connect(address.url(), application_name="pytest-chatdify-db copy")
    try:
        with connection.cursor() as cursor:
            cursor.execute(_EXACT)
        connection.commit()
        yield connection
    finally:
        connection.close()


def _rows(cursor: Cursor, sql: str, *values: object) -> list[tuple[Any, ...]]:
    cursor.execute(sql, values or None)
    return cursor.fetchall()


# -- What differs


def _differences(reader: Cursor, writer: Cursor) -> tuple[str, ...]:
    """Return what was created, altered or dropped in the source, described by whoever still has it."""
    there, here = set(_rows(reader, _OBJECTS)), set(_rows(writer, _OBJECTS))
    only_there, only_here = ({row[:3] for row in rows} for rows in (there - here, here - there))
    found = [*_described(reader, only_there), *_described(writer, only_here - only_there)]
    return tuple(dict.fromkeys(found))


def _described(cursor: Cursor, keys: set[tuple[int, int, int]]) -> Iterator[str]:
    for catalog, oid, part in sorted(keys):
        # With a table that is new or gone so is each of its columns.
        if not part or (catalog, oid, 0) not in keys:
            ((text,),) = _rows(cursor, "SELECT pg_describe_object(%s, %s, %s)", catalog, oid, max(part, 0))
            yield text


def _written(reader: Cursor, writer: Cursor) -> list[_Table]:
    """Return the tables of both sides whose rows may differ."""
    here = {row[0]: _Table(*row) for row in _rows(writer, _TABLES)}
    there = [_Table(*row) for row in _rows(reader, _TABLES)]
    return [
        table
        for table in there
        if (twin := here.get(table.oid)) is not None
        and twin.shape == table.shape
        and (table.is_written or table.file != twin.file)
    ]


# -- Copying


def _replace(reader: Cursor, writer: Cursor, tables: Iterable[_Table]) -> None:
    plain = [table for table in tables if table.kind == "r"]
    views = [table for table in tables if table.kind == "m"]
    with _unchecked(writer, plain) as all_tables:
        for table in all_tables:
            _copy(reader, writer, table.name)
    for view in views:
        writer.execute(f"REFRESH MATERIALIZED VIEW {view.name}")


def _copy(reader: Cursor, writer: Cursor, table: str) -> None:
    with tempfile.SpooledTemporaryFile(_MOST_IN_MEMORY) as rows:
        reader.copy_expert(f"COPY {table} TO STDOUT", rows)
        rows.seek(0)
        writer.copy_expert(f"COPY {table} FROM STDIN", rows)


@contextmanager
def _unchecked(writer: Cursor, tables: list[_Table]) -> Iterator[list[_Table]]:
    """Empty *tables* and have no trigger fire and no foreign key in the way while the block fills them.

    Yields:
        The tables to fill: more of them where only their owner's means are at hand.
    """
    from psycopg2.errors import InsufficientPrivilege

    writer.execute("SAVEPOINT unchecked")
    try:
        writer.execute("SET LOCAL session_replication_role = replica")
    except InsufficientPrivilege:
        writer.execute("ROLLBACK TO SAVEPOINT unchecked")
        with _deferred(writer, tables) as more:
            yield more
        return
    for table in tables:
        writer.execute(f"DELETE FROM ONLY {table.name}")  # noqa: S608 - quoted by the server
    yield tables
    writer.execute("SET LOCAL session_replication_role = origin")


@contextmanager
def _deferred(writer: Cursor, tables: list[_Table]) -> Iterator[list[_Table]]:
    """Do as `_unchecked` does, as the owner of the tables: foreign keys are checked at the end."""
    keys = _rows(writer, _FOREIGN_KEYS)
    oids = {table.oid for table in tables}
    # TRUNCATE wants all tables that refer to one of them.
    while more := {referring for referring, _, _, referred, _ in keys if referred in oids and referring not in oids}:
        oids |= more
    every = [table for row in _rows(writer, _TABLES) if (table := _Table(*row)).oid in oids]
    constraints = [(table, name, timing) for oid, table, name, _, timing in keys if oid in oids]
    for table in every:
        writer.execute(f"ALTER TABLE {table.name} DISABLE TRIGGER USER")
    if every:
        writer.execute(f"TRUNCATE {', '.join(f'ONLY {table.name}' for table in every)}")
    for owner, name, _ in constraints:
        writer.execute(f"ALTER TABLE {owner} ALTER CONSTRAINT {name} DEFERRABLE INITIALLY DEFERRED")
    yield every
    writer.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for owner, name, timing in constraints:
        writer.execute(f"ALTER TABLE {owner} ALTER CONSTRAINT {name} {timing}")
    for table in every:
        writer.execute(f"ALTER TABLE {table.name} ENABLE TRIGGER USER")


def _set_sequences(reader: Cursor, writer: Cursor) -> None:
    here = {row[0]: row for row in _rows(writer, _SEQUENCES)}
    moved = [row for row in _rows(reader, _SEQUENCES) if row[0] in here and here[row[0]] != row]
    for oid, value, is_called in moved:
        writer.execute("SELECT setval(%s::oid::regclass, %s, %s)", (oid, value, is_called))
