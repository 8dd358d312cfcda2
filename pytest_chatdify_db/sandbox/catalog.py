"""What the sandbox must know of the database's schema: which constraints wait for COMMIT, which functions may write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from pytest_chatdify_db.sandbox.sql import Statement

#: Yields rows (sort, name): "deferrable" or "deferred" constraints, and functions of the schema that are not
#: immutable or stable. There is no SET CONSTRAINTS ... DEFAULT, and ALL DEFERRED would also defer those that are
#: INITIALLY IMMEDIATE: hence the list.
QUERY: Final = """
SELECT CASE WHEN c.condeferred THEN 'deferred' ELSE 'deferrable' END,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.conname)
  FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 WHERE c.condeferrable
 UNION
SELECT 'function', p.proname
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
    """

    has_deferrable: bool = False
    deferred: tuple[str, ...] = ()
    writing: frozenset[str] = _WRITING

    @classmethod
    def from_rows(cls, rows: list[list[str | None]]) -> Catalog:
        """Read the rows of ``QUERY``."""
        found = [(sort, name) for sort, name in rows if sort and name]
        return cls(
            has_deferrable=any(sort.startswith("defer") for sort, _ in found),
            deferred=tuple(name for sort, name in found if sort == "deferred"),
            writing=_WRITING | {name for sort, name in found if sort == "function"},
        )

    @property
    def check(self) -> str:
        """The SQL that checks what waits for COMMIT and has it wait again."""
        again = f";SET CONSTRAINTS {','.join(self.deferred)} DEFERRED" if self.deferred else ""
        return "SET CONSTRAINTS ALL IMMEDIATE" + again


def defines(statement: Statement) -> bool:
    """Return whether *statement* may change what ``QUERY`` finds."""
    return _DEFINES.match(statement.text) is not None
