"""Serial and identity columns set back: the next value is one past the largest stored, or the first one.

Sequences are not part of a transaction, so a rollback leaves them where they are; tests that check ids ask for this.
"""

from __future__ import annotations

from pytest_chatdify_db.postgres.address import Address

_RESET = """
DO $$
DECLARE
    one record;
    last bigint;
BEGIN
    FOR one IN
        SELECT sequence.oid::regclass::text AS name, p.seqstart AS start, p.seqincrement > 0 AS grows,
               a.attname AS column, a.attrelid::regclass::text AS table
          FROM pg_class AS sequence
          JOIN pg_sequence AS p ON p.seqrelid = sequence.oid
          LEFT JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = sequence.oid
               AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
          LEFT JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE sequence.relpersistence <> 't'
    LOOP
        last := NULL;
        IF one.column IS NOT NULL THEN
            EXECUTE format('SELECT %s(%I) FROM %s', CASE WHEN one.grows THEN 'max' ELSE 'min' END,
                           one.column, one.table) INTO last;
        END IF;
        IF last IS NULL OR (last < one.start) = one.grows AND last <> one.start THEN
            PERFORM setval(one.name, one.start, false);
        ELSE
            PERFORM setval(one.name, last, true);
        END IF;
    END LOOP;
END
$$
"""


def reset(address: Address) -> None:
    """Set back every sequence of the database at *address*."""
    from pytest_chatdify_db.postgres.connection import connect

    with connect(address) as connection:
        connection.query(_RESET)
