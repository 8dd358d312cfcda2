"""What statements have done, noted in the ledger once the server has said so.

The rule: whatever may have written counts as a write, since a rollback must undo it; only plain reads are passed over,
and what says that it has changed no row where nothing else can come of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from pytest_chatdify_db.postgres.quoting import in_ascii
from pytest_chatdify_db.sandbox import catalog, dirty, names, temporary
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.ledger import Ledger
from pytest_chatdify_db.sandbox.lexer import text_of, words
from pytest_chatdify_db.sandbox.statement import Kind, Statement

_COUNTED: Final = frozenset({"insert", "update", "delete", "merge"})
_WRITES: Final = frozenset({Kind.WRITE, Kind.COPY_IN, Kind.EXECUTE})


def note(ledger: Ledger, client: Client, statements: Sequence[Statement], *, has_changed: bool = True) -> None:
    """Note what the client's *statements* have done; unless one *has_changed* rows, each says that it has not."""
    for statement in statements:
        if statement.is_plain_read and not ledger.catalog.may_write(statement):
            continue
        if _may_write(ledger, client, statement) and (has_changed or not _changes_rows_alone(ledger, statement)):
            ledger.history.wrote(client.number)
            ledger.begin(client).tables |= dirty.written_by(statement)
            ledger.dirty_reads.wrote(client, statement)
        if (named := _NAMED.get(statement.kind)) is not None:
            named(ledger, client, statement)
        if catalog.defines(statement):
            ledger.history.defined()
            ledger.begin(client).defines = True
            ledger.defined_in.add(len(ledger.history.frames))
        if statement.kind in _WRITES:
            _note_temporary(ledger, client, statement)
        if _may_lock(statement):
            ledger.locked_in.add(len(ledger.history.frames))
        ledger.leftovers.note(client, statement, len(ledger.history.frames))


def _changes_rows_alone(ledger: Ledger, statement: Statement) -> bool:
    """Return whether all that *statement* can do is to change the rows that its command tag counts."""
    catalog = ledger.catalog
    is_counted = statement.verb in _COUNTED and "with" not in words(statement.text)
    return is_counted and not catalog.has_reactions and not catalog.may_write(statement)


def _may_lock(statement: Statement) -> bool:
    return any("advisory" in name for name in statement.calls)


def _may_write(ledger: Ledger, client: Client, statement: Statement) -> bool:
    if statement.kind is Kind.SET_CONSTRAINTS:
        return ledger.catalog.has_triggers
    if statement.kind in _WRITES or ledger.catalog.may_write(statement):
        if statement.kind is Kind.DECLARE:
            client.writing_cursors.add(statement.name)
        return True
    return statement.kind is Kind.CURSOR and statement.name in client.writing_cursors


def _note_temporary(ledger: Ledger, client: Client, statement: Statement) -> None:
    if (made := temporary.made(statement, len(ledger.history.frames))) is not None:
        client.temporary = {**client.temporary, made.name: replace(made, encoding=client.encoding)}
        ledger.has_temporary = True
    if client.temporary:
        client.temporary = temporary.without(client.temporary, temporary.dropped(statement))
        client.temporary = temporary.renamed(client.temporary, statement)


def _set_constraints(ledger: Ledger, client: Client, statement: Statement) -> None:
    transaction = ledger.begin(client)
    transaction.constraints += (in_ascii(text_of(statement.text, client.encoding)),)
    ledger.history.constraints = transaction.constraints


def _declared(ledger: Ledger, client: Client, statement: Statement) -> None:
    ledger.opened_cursor(client, statement.name.encode("latin-1"), is_holdable=statement.is_holdable)


def _closed(ledger: Ledger, client: Client, statement: Statement) -> None:
    ledger.cursors.closed(client, statement.name.encode("latin-1"))


def _prepared_by_sql(ledger: Ledger, client: Client, statement: Statement) -> None:
    prepared = names.prepared_by_sql(client, statement)
    client.statements[statement.name.encode("latin-1")] = prepared
    ledger.statements.prepared(prepared)


def note_failed(ledger: Ledger, client: Client, statements: Sequence[Statement]) -> None:
    """Note what may have come of *statements* though they failed: no rollback undoes PREPARE, or releases a lock."""
    for statement in statements:
        if _may_lock(statement):
            ledger.locked_in.add(len(ledger.history.frames))
            ledger.leftovers.note(client, statement, len(ledger.history.frames))
        if statement.kind is Kind.PREPARE and statement.name.encode("latin-1") not in client.statements:
            _prepared_by_sql(ledger, client, statement)


def _deallocated(ledger: Ledger, client: Client, statement: Statement) -> None:
    prepared = client.statements.pop(statement.name.encode("latin-1"), None)
    if prepared is not None:
        ledger.statements.closed(prepared)


_NAMED: Final[dict[Kind, Callable[[Ledger, Client, Statement], None]]] = {
    Kind.SET_CONSTRAINTS: _set_constraints,
    Kind.DECLARE: _declared,
    Kind.CLOSE: _closed,
    Kind.PREPARE: _prepared_by_sql,
    Kind.DEALLOCATE: _deallocated,
}
