"""Any bytes from clients give events or a protocol error."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import sql

from .fuzz import PlayedServer, attempt
from .table import Table

_INPUTS = 1_500


def _table() -> Table:
    return Table(PlayedServer(Random(0)))


def test_random_messages_of_clients() -> None:
    """Right, wrong and cut messages in any order are answered, and leave nothing waiting; ``fuzz`` tries a million."""
    for seed in range(_INPUTS):
        attempt(seed)


@given(data=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_before_the_login(data: bytes) -> None:
    """Whatever comes first, the core raises nothing and does not wait for the server."""
    table = _table()

    table.feed(table.core.connected(), data)


@given(data=st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_after_the_login(data: bytes) -> None:
    """Whatever follows the log-in, what the client hears is made of whole messages."""
    table = _table()
    client = table.join()

    table.feed(client, data)

    table.heard(client)


@given(text=st.binary(max_size=60).map(lambda text: text.replace(b"\0", b"")))
@settings(max_examples=300, deadline=None)
def test_any_query_text(text: bytes) -> None:
    """Any text is parsed into statements that stand in it, and a Query of it is answered by one ReadyForQuery."""
    table = _table()
    client = table.join()
    table.heard(client)

    for statement in sql.parse(text):
        assert statement.text in text.decode("latin-1")
    table.feed(client, wire.query(text))
    answers = [message[:1] for message in table.heard(client)]
    assert answers.count(b"Z") + answers.count(b"G") == 1
