"""Who may connect, what the others are told, and the parameters that clients come with."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Stage

from .table import PASSWORD, REPORTED, ScriptedServer, Table


@pytest.mark.parametrize(
    ("packets", "error"),
    [
        (wire.startup({"user": "u"}, 2 << 16), "E 0A000 unsupported frontend protocol 2.0: server supports 3.0 to 3.2"),
        (wire.startup({"user": ""}), "E 28000 no PostgreSQL user name specified in startup packet"),
        (wire.startup({"user": "u", "options": "-c a"}), "E 42601 -c a requires a value"),
        (wire.startup({"user": "u", "replication": "true"}), "E 0A000 replication connections are not available"),
        (wire.startup({"user": "x", "database": "d"}) + PASSWORD, "E 28P01 password authentication failed for user"),
        (wire.startup({"user": "u", "database": "d"}) + wire.message(b"p", b"no\0"), "E 28P01 password"),
        (wire.startup({"user": "u", "database": "e"}) + PASSWORD, 'E 3D000 database "e" does not exist'),
        (wire.startup({"user": "u"}) + PASSWORD, 'E 3D000 database "u" does not exist'),
        (wire.startup({"user": "u", "database": "d"}) + wire.query("select 1"), "E 08P01 expected password response"),
        (b"\0\0\0\1", "E 08P01 invalid length of startup packet"),
    ],
)
def test_strangers_are_refused(table: Table, packets: bytes, error: str) -> None:
    """With the server's SQLSTATE, and the connection ends."""
    client = table.core.connected()
    table.feed(client, packets)

    assert table.told(client)[-1].startswith(error)
    assert client.stage is Stage.ENDED


def test_a_log_in(table: Table) -> None:
    """Encryption is declined, a newer protocol negotiated, and the client gets its key and the server's parameters."""
    client = table.core.connected()
    for code in (wire.SSL_REQUEST, wire.GSSENC_REQUEST):
        table.feed(client, wire.pack_int32(8) + wire.pack_int32(code))
    assert bytes(client.out) == b"NN"
    client.out.clear()
    table.feed(client, wire.startup({"user": "u", "database": "d", "_pq_.x": "1"}, 3 << 16 | 9))
    assert [line[0] for line in table.told(client)] == ["v", "R"]
    assert len(client.key) == 32
    table.feed(client, PASSWORD)

    lines = table.told(client)
    assert [line for line in lines if line[0] == "S"] == [f"S {name}={value}" for name, value in REPORTED.items()]
    assert lines[-1] == "Z I"


def test_start_up_parameters_that_the_server_refuses(table: Table, server: ScriptedServer) -> None:
    """The client hears the server's error, as a fatal one, and nobody else notices."""
    server.on("'work_mem','much'", wire.error("22023", "invalid value"))
    client = table.join(work_mem="much")

    assert wire.error_fields(table.heard(client)[-1][5:])["S"] == "FATAL"
    assert client.stage is Stage.ENDED
    assert table.talk(table.join(statement_timeout="1000"), "Q select 1") == ["C SELECT", "Z I"]


def test_answers_about_parameters_are_not_kept_without_end(table: Table) -> None:
    """Where each connection comes with parameters of its own, such as a name."""
    for number in range(120):
        table.join(application_name=f"worker {number}")

    assert len(table.core.session.welcomes) == 100
