"""What the sandbox must know of the database's schema: which constraints wait for COMMIT, which functions may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pytest_chatdify_db.postgres.quoting import in_ascii
from pytest_chatdify_db.sandbox.lexer import text_of, words
from pytest_chatdify_db.sandbox.statement import Statement

#: Yields rows (sort, name, tables):
#: "deferrable" or "deferred" constraints with the names of the tables whose changes they check (there is no SET
#: CONSTRAINTS ... DEFAULT, and ALL DEFERRED would also defer those that are INITIALLY IMMEDIATE: hence the list);
#: functions that may write: the database's own, whatever they declare, and the volatile ones of extensions;
#: "named" are those that can be called without parentheses, as an attribute of a row, and what calls one by itself:
#: views, tables with a policy, domains and types that are cast to;
#: "reaction" if a trigger, a rule or a volatile function of a default or a check may do more than a statement says;
#: "trigger" if a function is called at COMMIT; "operator" if an operator of the database's own calls one.
QUERY: Final = """
WITH RECURSIVE functions AS (
  SELECT p.oid, p.proname, d.objid IS NULL AS is_own, p.provolatile = 'v' AS is_volatile,
         p.pronargs = 1 AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.reltype = p.proargtypes[0]) AS takes_row
    FROM pg_catalog.pg_proc p
    LEFT JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
   WHERE p.oid >= 16384 AND (d.objid IS NULL OR p.provolatile = 'v')
), uses AS (
  SELECT d.classid, d.objid, f.is_volatile
    FROM functions f
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = f.oid
), views AS (
  SELECT r.ev_class AS oid
    FROM uses u
    JOIN pg_catalog.pg_rewrite r ON u.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = u.objid
   UNION
  SELECT p.polrelid
    FROM uses u
    JOIN pg_catalog.pg_policy p ON u.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = u.objid
   WHERE u.is_volatile
   UNION
  SELECT r.ev_class
    FROM views v
    JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = v.oid
    JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
), types AS (
  SELECT c.contypid AS oid
    FROM uses u
    JOIN pg_catalog.pg_constraint c ON u.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = u.objid
   WHERE u.is_volatile
   UNION
  SELECT c.casttarget
    FROM uses u
    JOIN pg_catalog.pg_cast c ON u.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass AND c.oid = u.objid
   WHERE u.is_volatile
)
SELECT CASE WHEN c.condeferred THEN 'deferred' ELSE 'deferrable' END,
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.conname),
       (SELECT pg_catalog.string_agg(r.relname, E'\\t')
          FROM pg_catalog.pg_class r WHERE r.oid IN (c.conrelid, c.confrelid))
  FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 WHERE c.condeferrable
 UNION SELECT 'function', pg_catalog.lower(f.proname), '' FROM functions f
 UNION SELECT 'named', pg_catalog.lower(f.proname), '' FROM functions f WHERE f.takes_row
 UNION SELECT 'named', pg_catalog.lower(c.relname), '' FROM pg_catalog.pg_class c WHERE c.oid IN (SELECT oid FROM views)
 UNION SELECT 'named', pg_catalog.lower(t.typname), '' FROM pg_catalog.pg_type t WHERE t.oid IN (SELECT oid FROM types)
 UNION SELECT 'trigger', c.conname, '' FROM pg_catalog.pg_constraint c WHERE c.condeferrable AND c.contype = 't'
 UNION SELECT 'reaction', 'any', ''
  WHERE EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal)
     OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.oid >= 16384 AND r.rulename <> '_RETURN')
     OR EXISTS (SELECT FROM uses u
                 WHERE u.is_volatile AND u.classid IN ('pg_catalog.pg_attrdef'::pg_catalog.regclass,
                                                       'pg_catalog.pg_constraint'::pg_catalog.regclass))
 UNION SELECT 'operator', o.oprname, '' FROM pg_catalog.pg_operator o JOIN functions f ON f.oid = o.oprcode AND f.is_own
"""

#: Functions of PostgreSQL itself that change data a rollback undoes.
_WRITING: Final = frozenset(
    [
        "lo_create",
        "lo_creat",
        "lo_from_bytea",
        "lo_import",
        "lo_open",  # a rollback closes what was opened
        "lo_put",
        "lo_unlink",
        "lowrite",
        "lo_truncate",
        "lo_truncate64",
    ]
)
_DEFINING: Final = frozenset({"create", "alter", "drop", "do", "call", "import"})


@dataclass(frozen=True)
class Catalog:
    """What was found.

    Args:
        has_deferrable: Whether any constraint may be checked at COMMIT.
        deferred: The constraints that are unless told otherwise, quoted and with their schema.
        functions: The names, in lower case, of functions that may write.
        named: The names of those that are called without parentheses, and of what calls one by itself.
        has_triggers: Whether a function may be called at COMMIT, which may write.
        has_reactions: Whether a statement that changes no row may have done something all the same.
        has_operators: Whether an operator may call one, so that any statement may write.
        tables: The tables that each deferrable constraint checks, by its name.
    """

    has_deferrable: bool = False
    deferred: tuple[str, ...] = ()
    functions: frozenset[str] = _WRITING
    named: frozenset[str] = frozenset()
    has_triggers: bool = False
    has_reactions: bool = False
    has_operators: bool = False
    tables: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def from_rows(cls, rows: list[list[str | None]]) -> Catalog:
        """Read the rows of ``QUERY``."""
        found = [(sort, name, tables or "") for sort, name, tables in rows if sort and name]
        constraints = [(sort, text_of(name), tables) for sort, name, tables in found if sort.startswith("defer")]
        return cls(
            has_deferrable=bool(constraints),
            deferred=tuple(name for sort, name, _ in constraints if sort == "deferred"),
            functions=_WRITING | {name for sort, name, _ in found if sort == "function"},
            named=frozenset(name for sort, name, _ in found if sort == "named"),
            has_triggers=any(sort == "trigger" for sort, _, _ in found),
            has_reactions=any(sort == "reaction" for sort, _, _ in found),
            has_operators=any(sort == "operator" for sort, _, _ in found),
            tables={name: frozenset(tables.split("\t")) for _, name, tables in constraints},
        )

    def may_write(self, statement: Statement) -> bool:
        """Return whether *statement*, which is none that writes by itself, may do so by what it calls.

        A wrong yes costs a savepoint; a wrong no loses what was written when somebody else's statement fails.
        """
        if self.has_operators:
            return statement.reads_data
        named = words(statement.text) if self.named else statement.calls
        return not self._writing.isdisjoint(named)

    @cached_property
    def _writing(self) -> frozenset[str]:
        return self.functions | self.named

    def on(self, tables: frozenset[str]) -> list[str]:
        """Return the deferrable constraints that check changes of *tables*."""
        return [name for name, checked in self.tables.items() if checked & tables]

    def modes(self, asked: Sequence[str]) -> list[str]:
        """Return the SQL that has each constraint be checked as it was declared, and then as was *asked* for.

        It fails where another client's rows wait for a check that is immediate now. So the last of the list asks for
        none: what must wait does, and what has to be checked is, at COMMIT.
        """
        immediate = [name for name in self.tables if name not in self.deferred]
        now = [f"SET CONSTRAINTS {listed(immediate)} IMMEDIATE"] if immediate else []
        later = [f"SET CONSTRAINTS {listed(self.deferred)} DEFERRED"] if self.deferred else []
        return [";".join(sql) for sql in ([*now, *later, *asked], later) if sql]

    def check(self, constraints: Sequence[str] | None = None) -> str:
        """Return the SQL that checks what waits for COMMIT and has it wait again.

        Args:
            constraints: Which ones; default all.
        """
        names = listed(constraints) if constraints is not None else "ALL"
        again = [name for name in self.deferred if constraints is None or name in constraints]
        return f"SET CONSTRAINTS {names} IMMEDIATE" + (f";SET CONSTRAINTS {listed(again)} DEFERRED" if again else "")


def listed(names: Sequence[str]) -> str:
    """Return the *names* of constraints as SQL lists them."""
    return ",".join(map(in_ascii, names))


def defines(statement: Statement) -> bool:
    """Return whether *statement* may change what ``QUERY`` finds."""
    return statement.verb in _DEFINING
