"""COPY FROM STDIN: the data is all there before the server is asked, and where it waits."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Client, Stage
from pytest_chatdify_db.sandbox.messages import Memory

from .table import COPY_IN, ScriptedServer, Table

DATA = wire.message(b"d", b"1\n")
FAIL = wire.message(b"f", b"no\0")


def begun(table: Table, server: ScriptedServer) -> Client:
    """Return a client that is asked for the data of a COPY."""
    client = table.join()
    server.on("copy t", COPY_IN)
    table.feed(client, wire.query("copy t from stdin"))
    assert kinds(table, client)[-1] == "G"
    server.on("copy t", COPY_IN)
    return client


def kinds(table: Table, client: Client) -> str:
    """Return the types of the messages that the client was sent."""
    return b"".join(message[:1] for message in table.heard(client)).decode()


@pytest.mark.parametrize("pieces", [[DATA + DATA + wire.COPY_DONE], [DATA, DATA, wire.COPY_DONE], [DATA * 3, FAIL]])
def test_the_data_reaches_the_server_whole(table: Table, server: ScriptedServer, pieces: list[bytes]) -> None:
    """In one piece or in several, kept aside meanwhile; the client is answered when the last of it has come."""
    client = begun(table, server)
    for piece in pieces[:-1]:
        table.feed(client, piece)
        assert kinds(table, client) == ""
    table.core.received(client, pieces[-1])
    table.core.run()

    sent = table.sent()
    data = b"".join(pieces)
    assert data[:-5] in sent
    table.hear(server.answer(sent))
    table.settle()
    assert kinds(table, client) == ("CZ" if data.endswith(wire.COPY_DONE) else "EZ")


def test_sync_and_flush_between_the_data(table: Table, server: ScriptedServer) -> None:
    """They mean nothing there, and what comes before them is data all the same."""
    client = begun(table, server)
    table.feed(client, DATA)
    table.feed(client, DATA + wire.SYNC + DATA + wire.FLUSH)
    table.core.received(client, DATA + wire.COPY_DONE)
    table.core.run()

    assert DATA * 4 + wire.COPY_DONE in table.sent()


def test_another_message_between_the_data(table: Table, server: ScriptedServer) -> None:
    """It ends the connection, as the server does."""
    client = begun(table, server)
    table.heard(client)
    table.feed(client, DATA + wire.message(b"E", b"\0" + bytes(4)) + DATA + wire.COPY_DONE)

    assert kinds(table, client) == "EE"


def test_another_message_when_the_data_was_wrong(table: Table, server: ScriptedServer) -> None:
    """The COPY has failed before it, so it is one like any other."""
    client = table.join()
    server.on("copy t", COPY_IN)
    server.on("copy t", wire.error("22P02", "wrong data"))
    table.talk(client, "Q copy t from stdin")

    assert table.talk(client, "d x", "Q select 1 as a") == ["E 22P02 wrong data", "Z I", "C SELECT", "Z I"]


def test_no_room_for_the_data(table: Table) -> None:
    """The connection ends with the server's SQLSTATE for a full disk."""

    class Full(Memory):
        def put(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    table.outside.stores = Full
    client = table.join()
    table.heard(client)
    table.feed(client, DATA)

    (message,) = table.heard(client)
    fields = wire.error_fields(message[5:])
    assert (fields["S"], fields["C"]) == ("FATAL", "53100")
    assert fields["M"] == (
        "the data of COPY cannot be kept until there is all of it: [Errno 28] No space left on device"
    )
    assert client.stage is Stage.ENDED


@pytest.mark.parametrize("lines", [["Q copy t from stdin"], ["P - copy t from stdin", "B - -", "E -", "S"]])
def test_a_copy_that_outlives_its_test(table: Table, server: ScriptedServer, lines: list[str]) -> None:
    """Its data does not come into the next one."""
    table.ask(table.core.push("the test"))
    client = table.join()
    server.on("copy t", COPY_IN)
    table.talk(client, *lines)
    table.ask(table.core.pop())
    server.heard.clear()

    error, ready = table.talk(client, "d 1", "c", *lines[3:])
    assert (error[:40], ready) == ("E 25P02 this transaction was undone when", "Z I")
    assert server.heard == []
    assert table.talk(client, "Q select 1 as a") == ["C SELECT", "Z I"]


def test_data_that_is_sent_without_waiting(table: Table, server: ScriptedServer) -> None:
    """In the extended protocol too it is the data of the COPY in front of it."""
    client = table.join()
    server.on("copy t", COPY_IN)
    server.on("copy t", COPY_IN)
    answers = table.talk(client, "P - copy t from stdin", "B - -", "E -", "d 1", "c", "S")

    assert answers == ["1", "2", "G 0000010000", "C COPY 1", "Z I"]
