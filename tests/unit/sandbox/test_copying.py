"""COPY FROM STDIN: the data is all there before the server is asked, and where it waits."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Client, Memory, Stage

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


def test_what_is_no_data_is_left_out(table: Table, server: ScriptedServer) -> None:
    """A message between the data that means nothing there is not sent, though the rest is kept aside."""
    client = begun(table, server)
    table.feed(client, wire.message(b"E", b"\0" + bytes(4)) + DATA)
    table.core.received(client, DATA + wire.COPY_DONE)
    table.core.run()

    sent = table.sent()
    assert DATA + DATA + wire.COPY_DONE in sent


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
