"""The server's answers reach the reply that waits for them, however they arrive."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.backend import Backend, Exchange, Reply


def row(*values: bytes | None) -> bytes:
    """Return a DataRow."""
    parts = [wire.pack_int32(-1) if value is None else wire.pack_int32(len(value)) + value for value in values]
    return wire.message(b"D", wire.pack_int16(len(values)) + b"".join(parts))


ERROR = wire.error("42P01", "no such table")
ANSWER = (
    wire.message(b"T", wire.pack_int16(0))
    + row(b"1", None)
    + wire.command_complete("SELECT 1")
    + wire.parameter_status("TimeZone", "UTC")
    + wire.READY["T"]
    + ERROR
    + wire.error("XX000", "a second one")
    + wire.READY["E"]
)


@pytest.mark.parametrize("size", [1, 3, len(ANSWER)])
def test_each_reply_gets_its_own_part(size: int) -> None:
    """Rows, the first error and the status; parameters are the session's."""
    backend = Backend({}, lambda message: None)
    exchange = Exchange()
    first, second = exchange.ask(wire.query("SELECT 1"), Reply()), exchange.ask(wire.query("SELECT 2"), Reply())
    backend.send(exchange)

    assert bytes(backend.out) == wire.query("SELECT 1") + wire.query("SELECT 2")
    assert not backend.is_idle

    for start in range(0, len(ANSWER), size):
        backend.receive(ANSWER[start : start + size])

    assert backend.is_idle
    assert (first.rows, first.error, first.status, first.fields) == ([["1", None]], None, "T", {})
    assert (second.error, second.status, second.fields["M"]) == (ERROR, "E", "no such table")
    assert backend.parameters == {"TimeZone": "UTC"}


def test_what_nobody_asked_for_is_passed_on_or_kept() -> None:
    """Notifications go to who wants them; the last words of a session are kept for the message."""
    heard: list[bytes] = []
    backend = Backend({}, heard.append)
    notification = wire.message(b"A", wire.pack_int32(1) + b"channel\0payload\0")
    backend.receive(notification)

    assert heard == [notification]
    assert backend.fatal_text == ""

    backend.receive(wire.error("57P01", "shutting down", severity="FATAL"))

    assert backend.fatal_text == "shutting down"


def test_a_copy_that_nobody_has_data_for_is_ended() -> None:
    """The server would wait for ever, and everybody with it."""
    backend = Backend({}, lambda message: None)
    exchange = Exchange()
    reply = exchange.ask(b"", Reply())
    backend.send(exchange)
    backend.receive(wire.message(b"G", b"\0\0\0"))

    assert backend.out[:1] == b"f"
    backend.receive(ERROR + wire.READY["E"])
    assert (reply.error, backend.is_idle) == (ERROR, True)
