"""Which messages about empty statements are answered without the server, and with what."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import empty
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.messages import BIND, CLOSE, DESCRIBE, EXECUTE, PARSE, Message
from pytest_chatdify_db.sandbox.transactions import Transaction

_PARSE = Message(PARSE, b"s\0;\0\0\0")
_BIND = Message(BIND, b"\0s\0\0\1\0\1\0\0\0\1\0\1")
_EXECUTE = Message(EXECUTE, b"\0\0\0\0\1")


def _told(client: Client, *messages: Message) -> list[bytes | None]:
    answers = []
    for message in messages:
        answer = empty.answer(client, message)
        answers.append(None if answer is None else answer())
    return answers


def _client() -> Client:
    client = Client(1, b"key")
    _told(client, _PARSE)
    return client


def test_the_question_of_a_pool_is_answered() -> None:
    """Parse, Describe, Bind and Execute of ``;``, as the server answers them."""
    describe = Message(DESCRIBE, b"Ss\0")

    assert _told(_client(), describe, _BIND, _EXECUTE) == [
        wire.message(b"t", b"\0\0") + wire.message(b"n"),
        wire.message(b"2"),
        wire.message(b"I"),
    ]


def test_its_portal_is_described() -> None:
    """As one without rows."""
    assert _told(_client(), _BIND, Message(DESCRIBE, b"P\0")) == [wire.message(b"2"), wire.message(b"n")]


@pytest.mark.parametrize(
    "message",
    [
        Message(PARSE, b"t\0select 1\0\0\0"),
        Message(PARSE, b"t\0;\0\0\1\0\0\0\x17"),
        Message(PARSE, b"s\0;\0\0\0"),
        Message(BIND, b"p\0s\0\0\0\0\0\0\0"),
        Message(BIND, b"\0s\0\0\0\0\1\0\0\0\1x\0\0"),
        Message(BIND, b"\0s\0\0\2\0\0\0\1\0\0\0\0"),
        Message(BIND, b"\0other\0\0\0\0\0\0\0"),
        Message(EXECUTE, b"p\0\0\0\0\0"),
        Message(DESCRIBE, b"Sother\0"),
        Message(CLOSE, b"Ss\0"),
    ],
)
def test_everything_else_is_for_the_server(message: Message) -> None:
    """Statements, parameters, names that are taken or unknown, portals with a name, values, Close."""
    assert _told(_client(), message) == [None]


def test_a_failed_transaction_refuses_it() -> None:
    """So the sandbox's common way answers, with the server's words."""
    client = _client()
    client.transaction = Transaction(1, failed=True)

    assert _told(client, _BIND) == [None]


def test_a_message_that_is_cut_short_is_told() -> None:
    """As a violation of the protocol."""
    with pytest.raises(wire.ProtocolViolation):
        empty.answer(_client(), Message(BIND, b"\0s"))
