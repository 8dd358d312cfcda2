"""What the sandbox must know of the database's schema: which constraints wait for COMMIT, which functions may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from pytest_chatdify_db.postgres.quoting import in_ascii
from pytest_chatdify_db.sandbox.lexer import text_of, words
from pytest_chatdify_db.sandbox.statement import Statement

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
        "pg_clear_attribute_stats",
        "pg_clear_relation_stats",
        "pg_replication_origin_create",
        "pg_replication_origin_drop",
        "pg_restore_attribute_stats",
        "pg_restore_relation_stats",
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
        """Read the rows of ``schema_query.QUERY``."""
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
    """Return whether *statement* may change what ``schema_query.QUERY`` finds."""
    return statement.verb in _DEFINING
