"""COPY FROM STDIN without holding the server while the data is made (54.2.6).

The rule: the statement is begun to learn what the server says to it, taken back, and run again once all data is there.
So whoever produces the data may use another connection meanwhile. Data that comes in more than one piece is on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import admission, refusals
from pytest_chatdify_db.sandbox.backend import Streamed
from pytest_chatdify_db.sandbox.client import COPY_DATA, FLUSH, SYNC, Client, Copying, Message, Stage, Stored
from pytest_chatdify_db.sandbox.relay import Probe, Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work

_TAKE_BACK = wire.message(b"f", b"\0")


def begin(session: SharedSession, client: Client, copying: Copying) -> Work:
    """Have the client send its data; return whether it was asked to."""
    if (objection := admission.objection(session, client, copying.statement)) is not None:
        return session.fail(client, objection)
    probe = Probe(client, copying.text)
    end = wire.SYNC if copying.is_extended else b""
    session.protect(client)
    guard = session.history.guard()  # one of its own: what the client wrote before must outlive the taking back
    if (yield from session.ask(client, copying.request + _TAKE_BACK + end, probe)):
        session.history.return_to(guard)
    if not probe.response:
        client.send(probe.error or b"")
        return False
    client.send(probe.response)
    client.copying = copying
    return True


def finish(session: SharedSession, client: Client, copying: Copying, data: list[Message]) -> Work:
    """Run the COPY with its *data*, of which the last message is CopyDone or CopyFail."""
    client.copying = None
    # The test may have ended while the data came.
    if (objection := admission.objection(session, client, copying.statement)) is not None:
        client.skips = copying.is_extended
        return session.fail(client, objection)
    tail = data[-1].encoded + (wire.SYNC if copying.is_extended else b"")
    request = Streamed(copying.request, _parts([*copying.data, *data[:-1]]), tail)
    is_last = not copying.is_extended and not copying.following and not client.mid_pipeline
    relay = Relay(client, text=copying.text, again=True, holds_tag=is_last and session.may_fail_at_commit(client))
    done = yield from session.ask(client, request, relay, [copying.statement])
    if done and relay.holds_tag:
        done = yield from session.commit(client, relay)
    relay.release()
    if not done and copying.is_extended:
        client.skips = True
    return done


def go_on(session: SharedSession, client: Client, unit: list[Message]) -> None:
    """Take what comes while data is expected and does not end it; Sync and Flush mean nothing there."""
    waits = client.copying
    assert waits is not None
    other = next(message.kind for message in unit if message.kind != COPY_DATA)
    if other not in {SYNC, FLUSH}:
        interrupted(session, client, other)
    else:
        waits.data += unit[:-1]


def interrupted(session: SharedSession, client: Client, kind: int) -> bool:
    """End the connection, as the server does, where a message of type *kind* comes while data is expected."""
    session.fail(client, wire.error("08P01", f"unexpected message type 0x{kind:02X} during COPY from stdin"))
    client.send(refusals.SYNC_LOST)
    client.stage = Stage.ENDED
    client.units.clear()
    return False


def _parts(data: Sequence[Message]) -> Iterator[bytes]:
    """Yield the CopyData that a client has sent."""
    for message in data:
        if isinstance(message, Stored):
            yield from message.store.take()
        else:
            yield message.encoded
