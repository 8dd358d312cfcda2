"""COPY FROM STDIN without holding the server while the data is made (54.2.6).

The rule: the statement is begun to learn what the server says to it, taken back, and run again once all data is there.
So whoever produces the data may use another connection meanwhile. Data that comes in more than one piece is on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import admission, refusals
from pytest_chatdify_db.sandbox.backend import Streamed
from pytest_chatdify_db.sandbox.client import Client, Copying, Stage
from pytest_chatdify_db.sandbox.messages import COPY_DATA, COPY_FAIL, FLUSH, SYNC, Message, Stored
from pytest_chatdify_db.sandbox.relay import Probe, Relay
from pytest_chatdify_db.sandbox.session import SharedSession, Work
from pytest_chatdify_db.sandbox.texts import Text

_TAKE_BACK = wire.message(b"f", b"\0")
#: Why a COPY fails whose client sends something else than data.
_CUT_SHORT = b"chatdify: cut short"


def begin(session: SharedSession, client: Client, copying: Copying) -> Work:
    """Have the client send its data; return whether it was asked to."""
    if (objection := admission.objection(session, client, copying.statement)) is not None:
        return session.fail(client, objection)
    probe = Probe(client, copying.text)
    end = wire.SYNC if copying.is_extended else b""
    yield from session.catch_up()  # it would write after the guard
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
    is_last = not copying.is_extended and not copying.following and not client.mid_pipeline
    relay = Relay(client, text=copying.text, again=True, holds_tag=is_last and session.may_fail_at_commit(client))
    done = yield from _run(session, client, copying, data, relay)
    if done and relay.holds_tag:
        done = yield from session.commit(client, relay)
    relay.release()
    return done


def go_on(session: SharedSession, client: Client, copying: Copying, unit: list[Message]) -> Work:
    """Take what comes while data is expected and does not end it; Sync and Flush mean nothing there.

    Returns:
        Whether the COPY has failed before, so that *unit* is one like any other.
    """
    at = next(at for at, message in enumerate(unit) if message.kind != COPY_DATA)
    if unit[at].kind not in {SYNC, FLUSH}:
        return (yield from interrupted(session, client, copying, unit[:at], unit[at].kind))
    copying.data += unit[:at]
    return False


def interrupted(session: SharedSession, client: Client, copying: Copying, data: list[Message], kind: int) -> Work:
    """End the connection, as the server does, where a message of type *kind* comes while data is expected.

    The server is given what there is of the data, since it says where it stood, or what is wrong before.

    Returns:
        Whether something was, so that the connection goes on.
    """
    relay = _CutShort(client, kind, copying.text)
    yield from _run(session, client, copying, [*data, Message(COPY_FAIL, _CUT_SHORT + b"\0")], relay)
    if not relay.is_cut_short:
        return True
    client.send(refusals.SYNC_LOST)
    client.is_told_of_end = True
    client.stage = Stage.ENDED
    client.units.clear()
    return False


class _CutShort(Relay):
    """The answer to a COPY that is told to fail: as if the server had found a message of type *kind* instead."""

    def __init__(self, client: Client, kind: int, text: Text | None) -> None:
        super().__init__(client, text=text, again=True)
        self.is_cut_short = False
        self._kind = kind

    def _own(self, message: bytes) -> bytes:
        fields = super()._own(message)[5:-2].split(b"\0")
        self.is_cut_short = any(field[:1] == b"M" and _CUT_SHORT in field for field in fields)
        if self.is_cut_short:
            said = {b"C": b"08P01", b"M": b"unexpected message type 0x%02X during COPY from stdin" % self._kind}
            fields = [field[:1] + said.get(field[:1], field[1:]) for field in fields]
        return wire.message(message[:1], b"\0".join(fields) + b"\0\0")


def _run(session: SharedSession, client: Client, copying: Copying, data: list[Message], relay: Relay) -> Work:
    client.copying = None
    # The test may have ended while the data came.
    objection = admission.objection(session, client, copying.statement)
    if (objection := refusals.CANCELLED if copying.is_cancelled else objection) is not None:
        client.skips = copying.is_extended
        return session.fail(client, objection)
    tail = data[-1].encoded + (wire.SYNC if copying.is_extended else b"")
    request = Streamed(copying.request, _parts([*copying.data, *data[:-1]]), tail)
    done = yield from session.ask(client, request, relay, [copying.statement])
    client.skips = copying.is_extended and not done
    return done


def _parts(data: Sequence[Message]) -> Iterator[bytes]:
    """Yield the CopyData that a client has sent."""
    for message in data:
        if isinstance(message, Stored):
            yield from message.store.take()
        else:
            yield message.encoded
