"""A cancel request ends a statement of its client and never one that the sandbox needs; each error is told once."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Client, Stage

from .table import COPY_IN, ScriptedServer, Table

CANCELLED = wire.error("57014", "canceling statement due to user request")


def heard(table: Table, client: Client) -> list[str]:
    """Return what the client was told: types, and SQLSTATEs of errors."""
    return [
        f"E {wire.error_fields(message[5:])['C']}" if message[:1] == b"E" else message[:1].decode()
        for message in table.heard(client)
    ]


def begin(table: Table, client: Client, sql: str) -> bytes:
    """Have the client send a query; return what the server is sent for it."""
    table.heard(client)
    table.core.received(client, wire.query(sql))
    table.core.run()
    return table.sent()


def first_message(data: bytes) -> int:
    """Return the length of the first message in *data*."""
    return 1 + wire.int32(data, 1)


def test_a_cancel_waits_for_the_clients_own_statement(table: Table, server: ScriptedServer) -> None:
    """While the server sets the sandbox's savepoint, nothing is cancelled; as soon as the statement runs, it is."""
    client = table.join()
    table.feed(client, wire.query("insert into t values (0)"))
    sent = begin(table, client, "insert into t values (1)")
    cut = first_message(sent)
    assert b"SAVEPOINT" in sent[:cut]
    table.core.cancel(client.number, client.key)
    assert table.outside.cancelled == []

    table.hear(server.answer(sent[:cut]))
    assert table.outside.cancelled == [client]

    server.on("insert into t", CANCELLED)
    table.hear(server.answer(sent[cut:]))
    assert heard(table, client) == ["E 57014", "Z"]
    assert table.core.broken == ""


@pytest.mark.parametrize("lines", [["Q copy t from stdin"], ["P - copy t from stdin", "B - -", "E -", "S"]])
def test_a_cancel_while_a_copy_waits_for_data(table: Table, server: ScriptedServer, lines: list[str]) -> None:
    """It is told so when the data has come; what was copied is not there."""
    client = table.join()
    server.on("copy t", COPY_IN)
    assert table.talk(client, *lines)[-1].startswith("G")
    table.core.cancel(client.number, client.key)
    more = [] if len(lines) == 1 else ["S"]

    error, ready = table.talk(client, "d 1\\n", "c", *more)
    assert (error, ready) == ("E 57014 canceling statement due to user request", "Z I")
    assert table.talk(client, "Q select 1")[-1] == "Z I"


def test_a_cancel_that_comes_too_late_is_forgotten(table: Table, server: ScriptedServer) -> None:
    """The statement is over before it could be cancelled: neither it nor the next one is."""
    client = table.join()
    table.feed(client, wire.query("insert into t values (0)"))
    sent = begin(table, client, "select 1")
    table.core.cancel(client.number, client.key)
    table.hear(server.answer(sent))
    table.settle()
    assert heard(table, client) == ["C", "Z"]

    table.feed(client, wire.query("select 2"))
    assert heard(table, client) == ["C", "Z"]
    assert table.outside.cancelled == []


@pytest.mark.parametrize(
    ("before", "sql", "behind"),
    [
        ("begin read only", "select 1", "RELEASE read_only"),
        ("begin", "set work_mem = '1MB'", "pg_catalog.current_setting("),
        ("begin; set statement_timeout = 1000", "select 1", "'statement_timeout','0'"),
    ],
)
def test_an_error_behind_the_statement_is_the_statements(
    table: Table, server: ScriptedServer, before: str, sql: str, behind: str
) -> None:
    """Cancelled when the statement itself was just done, it fails all the same, and its transaction with it."""
    client = table.join()
    table.feed(client, wire.query(before))
    table.heard(client)
    server.on(behind, CANCELLED)

    table.feed(client, wire.query(sql))
    assert heard(table, client) == ["C", "E 57014", "Z"]
    assert client.status == "E"

    table.feed(client, wire.query("rollback"))
    table.feed(client, wire.query("select 2"))
    assert heard(table, client)[-2:] == ["C", "Z"]
    assert table.core.broken == ""


def test_a_cancelled_check_at_commit_is_the_clients(table: Table, server: ScriptedServer) -> None:
    """Deferred constraints are checked for the client's COMMIT, which a cancel request ends."""
    server.on("pg_constraint", constraint())
    client = table.join()
    table.feed(client, wire.query("begin; insert into t values (1)"))
    table.heard(client)
    sent = begin(table, client, "commit")
    cut = first_message(sent)
    table.core.cancel(client.number, client.key)
    assert table.outside.cancelled == []
    table.hear(server.answer(sent[:cut]))
    assert table.outside.cancelled == [client]

    server.on("SET CONSTRAINTS", CANCELLED)
    table.hear(server.answer(sent[cut:]))
    table.settle()
    assert heard(table, client) == ["E 57014", "Z"]
    assert client.status == "I"


def constraint() -> bytes:
    """Return the catalog's row about a deferred constraint of a table ``t``."""
    values = ("deferred", "public.t_parent", "t")
    cells = b"".join(wire.pack_int32(len(value)) + value.encode() for value in values)
    return wire.message(b"D", wire.pack_int16(3) + cells) + wire.command_complete("SELECT 1")


def test_the_client_whose_statement_ends_the_session_is_told_once(table: Table, server: ScriptedServer) -> None:
    """It has the server's own last words; the others are told that the server has gone."""
    guilty, other = table.join(), table.join()
    table.heard(guilty)
    table.heard(other)
    fatal = wire.error("57P01", "terminating connection due to administrator command", severity="FATAL")
    table.feed(guilty, wire.query("insert into t values (0)"))
    table.heard(guilty)
    sent = begin(table, guilty, "select pg_terminate_backend(pg_backend_pid())")
    table.hear(server.answer(sent[: first_message(sent)]))
    table.hear(fatal)
    table.core.break_down(table.core.backend.fatal_text)

    told = [wire.error_fields(message[5:]) for message in table.heard(guilty)]
    assert [fields["M"] for fields in told] == ["terminating connection due to administrator command"]
    assert heard(table, other) == ["E 57P01"]
    assert {guilty.stage, other.stage} == {Stage.ENDED}
