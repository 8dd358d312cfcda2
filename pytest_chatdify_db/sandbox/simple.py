"""The simple query protocol: a text of one statement or several, and COPY FROM STDIN inside it (54.2.2, 54.2.6)."""

from __future__ import annotations

from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import control, copying, parameters, sql
from pytest_chatdify_db.sandbox.client import NAMING, Client, Copying
from pytest_chatdify_db.sandbox.relay import Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.sql import CONTROL, Kind, Statement

#: Statements that cannot travel to the server in one text with others.
SPLITS: Final = CONTROL | {Kind.COPY_IN}


def query(session: SharedSession, client: Client, text: bytes) -> Work:
    """Run a query text; return whether ReadyForQuery is due (it is not while COPY waits for data)."""
    client.statements.pop(b"", None)
    client.portals.pop(b"", None)
    client.last_sql = text[:2_000].decode("utf-8", "replace")
    statements = sql.parse(text)
    if not statements:
        client.send(wire.EMPTY_QUERY)
        return True
    if len(statements) > 1 or statements[0].kind in SPLITS:
        return (yield from run(session, client, list(statements), len(statements)))
    if statements[0].kind in NAMING:
        text = _renamed(client, statements)
    yield from _plain(session, client, text, statements, is_sole=True, is_last=True)
    return True


def run(session: SharedSession, client: Client, statements: list[Statement], of: int) -> Work:
    """Run the rest of a query text of *of* statements; return as ``query`` does."""
    plain: list[Statement] = []
    for index, statement in enumerate(statements):
        is_last = index == len(statements) - 1
        if statement.kind not in SPLITS:
            plain.append(statement)
            if not is_last and statements[index + 1].kind not in SPLITS:
                continue
            text = _renamed(client, plain)
            if not (yield from _plain(session, client, text, plain, is_sole=of == 1, is_last=is_last)):
                return True
            plain = []
        elif statement.kind is Kind.COPY_IN:
            request = wire.query(statement.text.encode("latin-1"))
            waits = Copying(request, statement, statements[index + 1 :], is_extended=False)
            return not (yield from copying.begin(session, client, waits))
        elif not (yield from control.answer(session, client, statement, is_sole=of == 1)):
            return True
    return True


def _plain(
    session: SharedSession,
    client: Client,
    text: bytes,
    statements: list[Statement] | tuple[Statement, ...],
    *,
    is_sole: bool,
    is_last: bool,
) -> Work:
    """Run what the server answers; a failure at the implicit COMMIT behind it takes the place of the last tag."""
    relay = Relay(client, holds_tag=is_last and session.may_fail_at_commit(client))
    for statement in statements:
        if (objection := session.objection(client, statement, is_sole=is_sole)) is not None:
            return session.fail(client, objection)
        relay.notice += session.warning(client, statement, is_sole=is_sole)
    changes = [change for statement in statements for change in parameters.changes(statement)]
    done = yield from session.ask(client, wire.query(text), relay, statements, changes)
    if done and relay.holds_tag and not client.mid_pipeline:
        done = yield from session.commit(client, relay)
    relay.release()
    return done


def _renamed(client: Client, statements: list[Statement] | tuple[Statement, ...]) -> bytes:
    texts = (s.renamed(client.server_name(s.name)) if s.kind in NAMING else s.text for s in statements)
    return ";".join(texts).encode("latin-1")
