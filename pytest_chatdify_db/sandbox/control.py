"""The statements that the sandbox answers itself: those about transactions, and those that speak of a whole session.

The rule: tags, notices and errors are the server's own for the same statement on a session of one's own (PostgreSQL 18,
``xact.c``); what the server has to do about it travels with whatever is sent next.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import admission, parameters, refusals
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.lexer import exactly
from pytest_chatdify_db.sandbox.parameters import Change
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.statement import Kind, Modes, Statement
from pytest_chatdify_db.sandbox.transactions import Level, Transaction

#: Levels that the shared transaction has (READ UNCOMMITTED is READ COMMITTED, section 13.2). A read-only transaction
#: may have a stricter one for as long as nobody else writes: until then it sees what it should.
_AVAILABLE: Final = frozenset({"read committed", "read uncommitted"})

#: For which the server takes a snapshot, so that modes of the transaction come too late behind them.
_TAKE_SNAPSHOT: Final = frozenset({Kind.CLOSE_ALL, Kind.DEALLOCATE_ALL, Kind.DISCARD_TEMP})

_SNAPSHOT: Final = re.compile(r"[0-9A-F-]*")

Answer = Callable[[SharedSession, Client, Statement], Work]


def answer(session: SharedSession, client: Client, statement: Statement, *, is_sole: bool) -> Work:
    """Answer *statement*, one of ``sql.CONTROL``.

    Args:
        session: Where it takes effect.
        client: Who sent it.
        statement: What it says.
        is_sole: Whether it is all there is between two ReadyForQuery.
    """
    transaction = client.transaction
    if transaction is not None and transaction.lost and statement.kind is Kind.BEGIN:
        session.roll_back(client)  # its client takes it to have ended; the test that left it open was told
    if (objection := admission.objection(session, client, statement)) is not None:
        return session.fail(client, objection)
    is_alone = is_sole and not client.in_transaction
    if statement.kind is Kind.DISCARD_ALL and not is_alone:
        return session.fail(client, wire.error("25001", "DISCARD ALL cannot run inside a transaction block"))
    client.send(admission.warning(client, statement, is_sole=is_sole))
    if statement.kind is Kind.PREPARE_TRANSACTION and not is_sole:
        session.begin(client).executes = True  # the transaction around all of its text, which it would end
    if statement.kind in _TAKE_SNAPSHOT:
        session.begin(client).has_snapshot = True
    return (yield from _ANSWERS[statement.kind](session, client, statement))


def _done(client: Client, tag: str) -> bool:
    client.send(wire.command_complete(tag))
    return True


# -- Beginning and ending


def _begin(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    if client.in_transaction:
        client.send(client.warning("25001", "there is already a transaction in progress"))
        return _set_modes(session, client, statement)
    transaction = session.begin(client)  # what has run since the last Sync becomes a part of it
    if text := _too_late(transaction, statement.modes):
        return session.fail(client, wire.error("25001", text))
    level = statement.modes.isolation or transaction.isolation
    read_only = transaction.read_only if statement.modes.read_only is None else statement.modes.read_only
    if level not in _AVAILABLE and not read_only:
        return session.fail(client, refusals.isolation(level))
    transaction.implicit, transaction.read_only, transaction.isolation = False, read_only, level
    session.history.take_snapshot(transaction, is_stable=level not in _AVAILABLE)
    return _done(client, statement.tag)


def _commit(session: SharedSession, client: Client, statement: Statement) -> Work:
    transaction = client.transaction
    if transaction is None or transaction.implicit:
        if statement.chain:
            return session.fail(client, refusals.needs_transaction("COMMIT AND CHAIN"))
        client.send(client.warning("25P01", "there is no transaction in progress"))
        return (yield from session.commit(client)) and _done(client, "COMMIT")
    if transaction.failed:
        session.roll_back(client)
        _chain(session, client, statement, transaction)
        return _done(client, "ROLLBACK")
    if not (yield from session.commit(client)):
        return False
    _chain(session, client, statement, transaction)
    return _done(client, "COMMIT")


def _rollback(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    transaction = client.transaction
    if transaction is None or transaction.implicit:
        if statement.chain:
            return session.fail(client, refusals.needs_transaction("ROLLBACK AND CHAIN"))
        client.send(client.warning("25P01", "there is no transaction in progress"))
        session.roll_back(client)
        return _done(client, "ROLLBACK")
    session.roll_back(client)
    _chain(session, client, statement, transaction)
    return _done(client, "ROLLBACK")


def _chain(session: SharedSession, client: Client, statement: Statement, ended: Transaction) -> None:
    if statement.chain:
        following = session.begin(client)
        following.implicit = False
        # A failure takes the modes back that were set in the transaction itself, not those it had by a chain.
        chained = ended.chained if ended.failed else (ended.read_only, ended.isolation)
        modes = chained or (following.read_only, following.isolation)
        following.read_only, following.isolation = following.chained = modes
        if following.isolation not in _AVAILABLE:
            session.history.take_snapshot(following, is_stable=True)


def _prepare_transaction(session: SharedSession, client: Client, statement: Statement) -> Work:
    """Refuse to prepare, which ends the transaction as any failure of it does; where there is none, say only that."""
    yield from ()
    transaction = client.transaction
    if transaction is not None and transaction.failed:
        session.roll_back(client)
        return _done(client, "ROLLBACK")
    if not client.in_transaction:
        client.send(client.warning("25P01", "there is no transaction in progress"))
        if session.is_first(client):
            return _done(client, "ROLLBACK")
    session.fail(client, refusals.PREPARE_TRANSACTION)
    session.roll_back(client)
    return False


# -- Savepoints


def _savepoint(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    transaction = client.transaction
    if transaction is None or transaction.implicit:
        return session.fail(client, refusals.needs_transaction("SAVEPOINT"))
    level = Level(
        name=statement.name,
        settings=client.parameters.snapshot(),
        signals=len(transaction.signals),
        temporary=client.temporary,
        constraints=transaction.constraints,
        read_only=transaction.read_only,
        tables=transaction.tables,
    )
    transaction.levels.append(level)
    return _done(client, "SAVEPOINT")


def _release(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    transaction = client.transaction
    if transaction is None or transaction.implicit:
        return session.fail(client, refusals.needs_transaction("RELEASE SAVEPOINT"))
    index = transaction.find(statement.name)
    if index is None:
        return session.fail(client, refusals.no_savepoint(statement.name))
    transaction.read_only = transaction.levels[index].read_only  # as the server has it
    session.history.leave(transaction, index)
    session.cursors.release(client, index)
    return _done(client, "RELEASE")


def _rollback_to(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    transaction = client.transaction
    if transaction is None or transaction.implicit:
        return session.fail(client, refusals.needs_transaction("ROLLBACK TO SAVEPOINT"))
    index = transaction.find(statement.name)
    if transaction.lost:
        return session.fail(client, refusals.lost(transaction.lost))
    if index is None:
        return session.fail(client, refusals.no_savepoint(statement.name))
    session.undo(client, index)
    session.cursors.roll_back_to(client, index)
    transaction.failed = False
    level = transaction.levels[index]
    session.dirty_reads.undone(client, level.tables)
    client.parameters.restore(level.settings)
    client.temporary, transaction.constraints = level.temporary, level.constraints
    transaction.read_only = level.read_only
    del transaction.signals[level.signals :]
    return _done(client, "ROLLBACK")


# -- Modes of transactions


def _set_transaction(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    if (snapshot := statement.modes.snapshot) is not None:
        return session.fail(client, _no_snapshot(session.begin(client), snapshot))
    return _set_modes(session, client, statement)


def _no_snapshot(transaction: Transaction, snapshot: str) -> bytes:
    """Return why *transaction* cannot have the snapshot of that name (``snapmgr.c``)."""
    if transaction.has_snapshot or len(transaction.levels) > 1:
        return wire.error("25001", "SET TRANSACTION SNAPSHOT must be called before any query")
    if transaction.isolation in _AVAILABLE:
        text = "a snapshot-importing transaction must have isolation level SERIALIZABLE or REPEATABLE READ"
        return wire.error("0A000", text)
    if _SNAPSHOT.fullmatch(snapshot) is None:
        return wire.error("22023", f'invalid snapshot identifier: "{exactly(snapshot)}"')
    return refusals.NO_SNAPSHOT


def _set_modes(session: SharedSession, client: Client, statement: Statement) -> bool:
    modes, transaction = statement.modes, session.begin(client)
    if text := _too_late(transaction, modes):
        return session.fail(client, wire.error("25001", text))
    read_only = transaction.read_only if modes.read_only is None else modes.read_only
    if modes.isolation is not None:
        is_available = modes.isolation in _AVAILABLE
        if not is_available and not read_only:
            return session.fail(client, refusals.isolation(modes.isolation))
        session.history.take_snapshot(transaction, is_stable=not is_available)
        transaction.isolation = modes.isolation
    transaction.read_only = read_only
    return _done(client, statement.tag)


def _too_late(transaction: Transaction, modes: Modes) -> str:
    """Return why *transaction* cannot have other *modes* any more, empty if it can (``variable.c``)."""
    is_nested = len(transaction.levels) > 1
    if modes.isolation not in {None, transaction.isolation}:
        if transaction.has_snapshot:
            return "SET TRANSACTION ISOLATION LEVEL must be called before any query"
        if is_nested:
            return "SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction"
    if modes.read_only is False and transaction.read_only:
        if is_nested:
            return "cannot set transaction read-write mode inside a read-only transaction"
        if transaction.has_snapshot:
            return "transaction read-write mode must be set before any query"
    if modes.deferrable is not None:
        if is_nested:
            return "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction"
        if transaction.has_snapshot:
            return "SET TRANSACTION [NOT] DEFERRABLE must be called before any query"
    return ""


def _session_characteristics(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    modes: Modes = statement.modes
    session.begin(client)
    if modes.isolation is not None:
        client.parameters.learn(Change("default_transaction_isolation", False), modes.isolation)
    if modes.read_only is not None:
        value = "on" if modes.read_only else "off"
        client.parameters.learn(Change("default_transaction_read_only", False), value)
    return _done(client, "SET")


# -- Limits of time that end a session


def _set_limit(session: SharedSession, client: Client, statement: Statement) -> Work:
    """Have the server judge and read the limit, and lift it before it is idle: a short one would end the session."""
    session.begin(client)
    name = statement.name
    acts = f"{statement.text}\n;{parameters.read_back([name])};{parameters.lift([name])}"
    reply = yield from session.attempt(acts, is_statement=True)
    if reply.error is not None:
        return session.fail(client, reply.error)
    if statement.kind is Kind.RESET_LIMIT:
        client.parameters.forget(name)
    else:
        client.parameters.learn(Change(name, statement.kind is Kind.SET_LOCAL_LIMIT), reply.rows[0][0])
    return _done(client, statement.tag)


# -- All that a client has in its session


def _reset_all(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    session.begin(client)  # its modes, and what a rollback brings back, are what was set before
    client.parameters.reset_all()
    return _done(client, "RESET")


def _close_all(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    session.close_cursors(client)
    return _done(client, "CLOSE CURSOR ALL")


def _deallocate_all(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from ()
    for prepared in client.statements.values():
        session.statements.discard(prepared)
    client.statements = {name: prepared for name, prepared in client.statements.items() if not name}  # the server too
    return statement.kind is Kind.DISCARD_ALL or _done(client, "DEALLOCATE ALL")


def _discard_temporary(session: SharedSession, client: Client, statement: Statement) -> Work:
    if client.temporary:
        before = client.temporary
        session.protect(client)
        session.drop_temporary(client)
        if statement.kind is Kind.DISCARD_TEMP and (error := (yield from session.tidy())) is not None:
            session.history.acts.clear()
            client.temporary = before
            return session.fail(client, error)
    return statement.kind is Kind.DISCARD_ALL or _done(client, "DISCARD TEMP")


def _discard_all(session: SharedSession, client: Client, statement: Statement) -> Work:
    yield from _deallocate_all(session, client, statement)
    yield from _discard_temporary(session, client, statement)
    session.close_cursors(client)
    client.channels.clear()
    client.parameters.reset()
    return (yield from session.commit(client)) and _done(client, "DISCARD ALL")  # at once, in a pipeline too


_ANSWERS: Final[dict[Kind, Answer]] = {
    Kind.BEGIN: _begin,
    Kind.COMMIT: _commit,
    Kind.ROLLBACK: _rollback,
    Kind.PREPARE_TRANSACTION: _prepare_transaction,
    Kind.SAVEPOINT: _savepoint,
    Kind.RELEASE: _release,
    Kind.ROLLBACK_TO: _rollback_to,
    Kind.SET_TRANSACTION: _set_transaction,
    Kind.SESSION_CHARACTERISTICS: _session_characteristics,
    Kind.SET_LIMIT: _set_limit,
    Kind.SET_LOCAL_LIMIT: _set_limit,
    Kind.RESET_LIMIT: _set_limit,
    Kind.RESET_ALL: _reset_all,
    Kind.CLOSE_ALL: _close_all,
    Kind.DEALLOCATE_ALL: _deallocate_all,
    Kind.DISCARD_TEMP: _discard_temporary,
    Kind.DISCARD_ALL: _discard_all,
}
