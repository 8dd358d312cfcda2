"""What the sandbox must know of the database's schema: which constraints wait for COMMIT, which functions may write."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pytest_chatdify_db.sandbox.sql import Statement

#: Yields rows (sort, name, tables): "deferrable" or "deferred" constraints with the names of the tables whose changes
#: they check, and functions of the schema that are not immutable or stable. There is no SET CONSTRAINTS ... DEFAULT,
#: and ALL DEFERRED would also defer those that are INITIALLY IMMEDIATE: hence the list.
QUERY: Final = """
SELECT CASE WHEN c.condeferred THEN 'deferred' ELSE 'deferrable' END,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.conname),
       (SELECT pg_catalog.string_agg(r.relname, E'\\t')
          FROM pg_catalog.pg_class r WHERE r.oid IN (c.conrelid, c.confrelid))
  FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 WHERE c.condeferrable
 UNION
SELECT 'function', p.proname, ''
  FROM pg_catalog.pg_proc p
 WHERE p.provolatile = 'v' AND p.oid >= 16384
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e')
"""

#: Functions of PostgreSQL itself that change data a rollback undoes.
_WRITING: Final = frozenset(
    [
        "lo_create",
        "lo_creat",
        "lo_from_bytea",
        "lo_import",
        "lo_put",
        "lo_unlink",
        "lowrite",
        "lo_truncate",
        "lo_truncate64",
    ]
)
_DEFINES = re.compile(r"\s*(?:create|alter|drop|do|call|import)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Catalog:
    """What was found.

    Args:
        has_deferrable: Whether any constraint may be checked at COMMIT.
        deferred: The constraints that are unless told otherwise, quoted and with their schema.
        writing: The names of functions that a SELECT may write with.
        tables: The tables that each deferrable constraint checks, by its name.
    """

    has_deferrable: bool = False
    deferred: tuple[str, ...] = ()
    writing: frozenset[str] = _WRITING
    tables: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def from_rows(cls, rows: list[list[str | None]]) -> Catalog:
        """Read the rows of ``QUERY``."""
        found = [(sort, name, tables or "") for sort, name, tables in rows if sort and name]
        constraints = [row for row in found if row[0] != "function"]
        return cls(
            has_deferrable=bool(constraints),
            deferred=tuple(name for sort, name, _ in constraints if sort == "deferred"),
            writing=_WRITING | {name for sort, name, _ in found if sort == "function"},
            tables={name: frozenset(tables.split("\t")) for _, name, tables in constraints},
        )

    def on(self, tables: frozenset[str]) -> list[str]:
        """Return the deferrable constraints that check changes of *tables*."""
        return [name for name, checked in self.tables.items() if checked & tables]

    def check(self, constraints: Sequence[str] | None = None) -> str:
        """Return the SQL that checks what waits for COMMIT and has it wait again.

        Args:
            constraints: Which ones; default all.
        """
        names = ",".join(constraints) if constraints is not None else "ALL"
        again = [name for name in self.deferred if constraints is None or name in constraints]
        return f"SET CONSTRAINTS {names} IMMEDIATE" + (f";SET CONSTRAINTS {','.join(again)} DEFERRED" if again else "")


def defines(statement: Statement) -> bool:
    """Return whether *statement* may change what ``QUERY`` finds."""
    return _DEFINES.match(statement.text) is not None
