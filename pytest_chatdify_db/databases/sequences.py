"""Sequences set back to where a fresh database has them, and past the rows that are there already.

The rule: where they belong is found out once, for the template and for the rows of wider fixtures; setting them back is
one statement.

Sequences are not part of a transaction, so a rollback leaves them where they are; tests that check ids ask for this.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect

# A value that was never called for is null here, and the next one is then where the sequence starts.
_STATES = """
    SELECT seqrelid, coalesce(pg_sequence_last_value(seqrelid), seqstart), pg_sequence_last_value(seqrelid) IS NOT NULL
      FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid WHERE relpersistence <> 't'
"""

# Copies of a database have the same object ids. What has not moved since is left alone.
_RESET = """
    SELECT count(setval(id, value, is_called))
      FROM unnest('{{{ids}}}'::oid[], '{{{values}}}'::bigint[], '{{{called}}}'::bool[]) AS state(id, value, is_called)
     WHERE pg_sequence_last_value(id) IS DISTINCT FROM CASE WHEN is_called THEN value END
"""

_BEYOND_ROWS = """
DO $$
DECLARE
    one record;
    farthest bigint;
BEGIN
    FOR one IN
        SELECT d.objid::regclass AS name, p.seqincrement > 0 AS grows, p.seqstart AS start, a.attname AS column,
               a.attrelid::regclass AS table, pg_sequence_last_value(d.objid) AS last
          FROM pg_depend AS d
          JOIN pg_sequence AS p ON p.seqrelid = d.objid
          JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    LOOP
        EXECUTE format('SELECT %s(%I) FROM %s', CASE WHEN one.grows THEN 'max' ELSE 'min' END, one.column, one.table)
           INTO farthest;
        IF one.grows AND farthest >= coalesce(one.last, one.start)
           OR NOT one.grows AND farthest <= coalesce(one.last, one.start) THEN
            PERFORM setval(one.name, farthest);
        END IF;
    END LOOP;
END
$$
"""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Where the sequences of a fresh database are.

    Args:
        statement: Sets them back; empty if there are none.
    """

    statement: str

    @classmethod
    def read(cls, address: Address) -> Baseline:
        """Take it from the database at *address*, in which nothing was done yet."""
        with connect(address) as connection:
            states = connection.query(_STATES)
        if not states:
            return cls("")
        ids, values, called = (",".join(part or "" for part in column) for column in zip(*states, strict=True))
        return cls(_RESET.format(ids=ids, values=values, called=called))

    def restore(self, address: Address, *, has_rows: bool) -> None:
        """Set the sequences back in the database at *address*, a copy of the one that was read.

        Args:
            address: The database, or the sandbox in front of it.
            has_rows: Whether it has rows beside those of a fresh database: identity and serial columns then go on after
                the farthest value that is stored.
        """
        if self.statement or has_rows:
            with connect(address) as connection:
                if self.statement:
                    connection.query(self.statement)
                if has_rows:
                    connection.query(_BEYOND_ROWS)


class Sequences:
    """Where the sequences belong at the beginning of a test, by the fixtures that have rows then.

    Args:
        fresh: Where those of a fresh database are.
    """

    def __init__(self, fresh: Baseline) -> None:
        self._fresh = fresh
        self._fixtures: tuple[Hashable, ...] = ()
        self._with_rows = fresh

    def restore(self, address: Address, fixtures: Sequence[Hashable]) -> None:
        """Set them back in the database at *address*, in which there are the rows of *fixtures*.

        Args:
            address: A copy of the template, or the sandbox in front of one.
            fixtures: The wider fixtures that have rows; each test begins with these same rows.
        """
        if not fixtures:
            self._fresh.restore(address, has_rows=False)
        elif tuple(fixtures) == self._fixtures:
            self._with_rows.restore(address, has_rows=False)
        else:
            self._fresh.restore(address, has_rows=True)
            self._with_rows, self._fixtures = Baseline.read(address), tuple(fixtures)
