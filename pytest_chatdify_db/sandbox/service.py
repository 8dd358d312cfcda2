"""Which protocol a client's unit speaks, and when it is told that it may go on."""

from __future__ import annotations

from collections.abc import Generator

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import admission, copying, extended, refusals, short, simple
from pytest_chatdify_db.sandbox.backend import Exchange
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.messages import COPY_DONE, COPY_FAIL, FLUSH, QUERY, SYNC, Message
from pytest_chatdify_db.sandbox.relay import Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.statement import Kind, Statement


def serve(session: SharedSession, client: Client, unit: list[Message]) -> Generator[Exchange, None, None]:
    """Serve one unit of *client*."""
    last = unit[-1]
    if last.kind in {COPY_DONE, COPY_FAIL}:
        if client.copying is not None:
            yield from _copy(session, client, unit)
        return  # data that nobody asked for any more: the COPY has failed (54.2.6)
    if (waits := client.copying) is not None:
        if not (yield from copying.go_on(session, client, waits, unit)):
            return
        if not waits.is_extended:
            yield from _end_of_query(session, client)
    if (yield from short.serve(session, client, unit)):
        return
    if len(unit) > 1:
        yield from extended.run(session, client, unit[:-1])
        if client.copying is not None or client.is_told_of_end:  # one that has only hung up is served to the end
            return
    yield from _end(session, client, last)


def cancel(session: SharedSession, client: Client, unit: list[Message]) -> None:
    """Answer a unit that was cancelled before its turn came."""
    last, waits = unit[-1].kind, client.copying
    if waits is None and last in {COPY_DONE, COPY_FAIL}:
        return  # data that nobody asked for any more
    client.copying = None
    if not client.skips:
        session.fail(client, refusals.CANCELLED)
        client.skips = last == FLUSH if waits is None else waits.is_extended
    if last == SYNC and waits is None:  # while data is expected Sync is ignored
        client.skips = client.mid_pipeline = False
    if not client.skips:
        session.ready(client)


def _end(session: SharedSession, client: Client, last: Message) -> Generator[Exchange, None, None]:
    """Do what the message says that ends a unit; those before it have been served."""
    if last.kind == SYNC:
        client.skips = False
        yield from _commit_implicit(session, client)
        client.mid_pipeline = False
        session.ready(client)
    elif client.skips or last.kind == FLUSH:
        return
    elif last.kind == QUERY:
        if (yield from _query(session, client, last.body)):
            yield from _end_of_query(session, client)
    else:
        yield from _call_function(session, client, last)
        yield from _end_of_query(session, client)


def _query(session: SharedSession, client: Client, body: bytes) -> Work:
    """Run a Query; return whether ReadyForQuery is due (it is not while COPY waits for data)."""
    try:
        text = _text(body)
    except wire.ProtocolViolation as problem:
        session.fail(client, wire.error("08P01", str(problem)))
        return True
    return (yield from simple.query(session, client, text))


def _text(query: bytes) -> bytes:
    """Return the text in the body of a *query*; raises ``ProtocolViolation``."""
    text, end = wire.cstring(query)
    if end < len(query):
        raise wire.ProtocolViolation("invalid message format")
    return text


def _call_function(session: SharedSession, client: Client, call: Message) -> Generator[Exchange, None, None]:
    """Call a function by its oid, as old programs do with large objects (54.2.5)."""
    statement = Statement(Kind.WRITE, "fastpath function call")
    if (objection := admission.objection(session, client, statement)) is not None:
        session.fail(client, objection)
    else:
        yield from session.ask(client, call.encoded, Relay(client), [statement])


def _copy(session: SharedSession, client: Client, data: list[Message]) -> Generator[Exchange, None, None]:
    waits = client.copying
    assert waits is not None
    done = yield from copying.finish(session, client, waits, data)
    if waits.is_extended:
        return
    if done and waits.following and waits.text is not None:
        of = len(waits.following) + 1
        if not (yield from simple.run(session, client, waits.text.original, waits.following, of)):
            return
    yield from _end_of_query(session, client)


def _end_of_query(session: SharedSession, client: Client) -> Generator[Exchange, None, None]:
    if not client.mid_pipeline:
        yield from _commit_implicit(session, client)
    session.ready(client)


def _commit_implicit(session: SharedSession, client: Client) -> Work:
    if client.transaction is None or not client.transaction.implicit:
        return True
    return (yield from session.commit(client))
