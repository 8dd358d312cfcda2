"""The simple query protocol: a text of one statement or several, and COPY FROM STDIN inside it (54.2.2, 54.2.6)."""

from __future__ import annotations

from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import admission, control, copying, names, parameters, signals, texts
from pytest_chatdify_db.sandbox.client import Client, Copying
from pytest_chatdify_db.sandbox.relay import COMMAND_COMPLETE, Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.statement import CONTROL, EXITS, TRANSACTIONAL, Kind, Statement, overlays
from pytest_chatdify_db.sandbox.texts import Parts

#: Statements that cannot travel to the server in one text with others.
SPLITS: Final = CONTROL | {Kind.COPY_IN}


def query(session: SharedSession, client: Client, text: bytes) -> Work:
    """Run a query text; return whether ReadyForQuery is due (it is not while COPY waits for data)."""
    session.close_unnamed(client)
    client.runs(text[:2_000])
    parts = texts.parts(client.readable(text))
    if not parts and text.isascii():
        client.send(wire.EMPTY_QUERY)
        return True
    if _may_be_wrong(client, text, parts):
        if (error := (yield from session.syntax_error(client, text, is_heard=_is_final(client, parts)))) is not None:
            session.fail(client, error)
            return True
    if not parts:
        client.send(wire.EMPTY_QUERY)
    return (yield from run(session, client, text, parts, len(parts)))


def _may_be_wrong(client: Client, text: bytes, parts: Parts) -> bool:
    """Return whether the server must parse all before the sandbox answers a part of it."""
    if not parts:
        return True
    first, _ = parts[0]
    if client.transaction is not None and client.transaction.failed:
        return len(parts) > 1 or first.is_doubtful or first.kind not in EXITS
    if len(parts) > 1:
        statements = [statement for statement, _ in parts]
        return any(each.kind in SPLITS or overlays(each, statements) for each in statements)
    if first.kind in admission.NEED_TRANSACTION:
        return not client.in_transaction
    return (first.is_doubtful or not text.isascii()) and first.kind in SPLITS


def _is_final(client: Client, parts: Parts) -> bool:
    """Return whether the server does no more with a text than to parse it."""
    if not parts:
        return True
    first, _ = parts[0]
    has_failed = client.transaction is not None and client.transaction.failed
    return all(each.kind in CONTROL for each, _ in parts) or (has_failed and first.kind not in EXITS)


def run(session: SharedSession, client: Client, text: bytes, parts: Parts, of: int) -> Work:
    """Run the rest of a query *text* of *of* statements; return as ``query`` does."""
    begin, is_sole = 0, of == 1 and session.is_first(client)
    for index, (statement, _) in enumerate(parts):
        is_last = index == len(parts) - 1
        if statement.kind not in SPLITS:
            plain = parts[begin : index + 1]
            if not is_last and not _is_apart(parts[index + 1][0], plain):
                continue
            if not (yield from _plain(session, client, text, plain, is_sole=is_sole, is_last=is_last)):
                return True
        elif statement.kind is Kind.COPY_IN:
            return not (yield from copying.begin(session, client, _copying(client, text, parts[index:])))
        else:
            ends = is_last and statement.kind not in TRANSACTIONAL and session.may_fail_at_commit(client)
            said = len(client.out)
            if not (yield from control.answer(session, client, statement, is_sole=is_sole)):
                return True
            if ends and not client.mid_pipeline:
                yield from _commit_behind(session, client, said)
        begin = index + 1
    return True


def _is_apart(statement: Statement, before: Parts) -> bool:
    """Return whether *statement* goes to the server behind a request of what is *before* it, if at all."""
    return statement.kind in SPLITS or overlays(statement, [each for each, _ in before])


def _commit_behind(session: SharedSession, client: Client, said: int) -> Work:
    """End a query whose last tag, sent behind *said* bytes, is not for the client if the COMMIT fails."""
    relay = Relay(client, holds_tag=True)
    relay.special(COMMAND_COMPLETE, bytes(client.out[said:]))
    del client.out[said:]
    done = yield from session.commit(client, relay)
    relay.release()
    return done


def _copying(client: Client, text: bytes, parts: Parts) -> Copying:
    (statement, at), *following = parts
    part = names.text_for_server(client, text, parts[:1], None, at, at + len(statement.text))
    return Copying(wire.query(part.sent), statement, part, following)


def _plain(session: SharedSession, client: Client, text: bytes, parts: Parts, *, is_sole: bool, is_last: bool) -> Work:
    """Run what the server answers; a failure at the implicit COMMIT behind it takes the place of the last tag."""
    statements = [statement for statement, _ in parts]
    last, last_at = parts[-1]
    end = last_at + len(last.text)
    is_as_it_came = last_at == 0 and end == len(text) and last.is_plain_read
    part = None if is_as_it_came else names.text_for_server(client, text, parts, session.cursors, parts[0][1], end)
    relay = Relay(client, text=part, holds_tag=is_last and session.may_fail_at_commit(client))
    for statement in statements:
        if (objection := admission.objection(session, client, statement, is_sole=is_sole)) is not None:
            return session.fail(client, objection)
        relay.notice += admission.warning(client, statement, is_sole=is_sole)
    more = [statement for statement in statements if not statement.is_plain_read]
    changes = [change for statement in more for change in parameters.changes(statement)]
    told = [signal for statement in more for signal in signals.signals(statement)]
    request = wire.query(text if part is None else part.sent)
    done = yield from session.ask(client, request, relay, statements, changes, told)
    if done and relay.holds_tag and not client.mid_pipeline:
        done = yield from session.commit(client, relay)
    relay.release()
    return done
