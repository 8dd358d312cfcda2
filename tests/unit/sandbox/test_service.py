"""Queries, function calls, and the order of messages in which only the sandbox can find a mistake."""

from __future__ import annotations

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Stage
from tests.integration.sandbox.scripts import show

from .table import COPY_IN, ScriptedServer, Table

DIVISION = wire.error("22012", "division by zero")


def test_queries(table: Table) -> None:
    """None, one, several, with transaction control between them."""
    client = table.join()

    assert table.talk(client, "Q ") == ["I", "Z I"]
    assert table.talk(client, "Q select 1; select 2") == ["C SELECT", "C SELECT", "Z I"]
    assert table.talk(client, "Q select 1; begin; select 2; commit") == [
        *("C SELECT", "C BEGIN", "C SELECT", "C COMMIT"),
        "Z I",
    ]
    assert table.talk(client, "raw Q 73") == ["E 08P01 invalid string in message", "Z I"]


def test_a_wrong_text_is_the_servers_to_judge(table: Table, server: ScriptedServer) -> None:
    """Before anything of it is executed."""
    client = table.join()
    server.on("selekt", wire.message(b"E", b"SERROR\0VERROR\0C42601\0Msyntax error\0P8\0\0"), at="P")

    assert table.talk(client, "Q begin; selekt") == ["E 42601 syntax error P=8", "Z I"]
    assert client.transaction is None


def test_a_well_formed_text_is_judged_once(table: Table, server: ScriptedServer) -> None:
    """The server is not asked again."""
    client = table.join()
    for _ in range(2):
        server.heard.clear()
        table.talk(client, "Q begin; select 1; commit")

    assert "!" not in server.heard


def test_an_error_ends_a_query(table: Table, server: ScriptedServer) -> None:
    """What stands behind it is not run, and what stood before is undone."""
    client = table.join()
    server.on("select 1/0", DIVISION)

    assert table.talk(client, "Q insert into t values (1); select 1/0") == ["E 22012 division by zero", "Z I"]
    assert table.talk(client, "Q savepoint a; select 1") == [
        "E 25P01 SAVEPOINT can only be used in transaction blocks",
        "Z I",
    ]


def test_a_function_call(table: Table, server: ScriptedServer) -> None:
    """It is a statement like others: in a failed transaction it is refused."""
    client = table.join()
    assert table.talk(client, "F 1598")[-1] == "Z I"

    table.talk(client, "Q begin")
    server.on("select 1/0", DIVISION)
    table.talk(client, "Q select 1/0")
    assert [line[:7] for line in table.talk(client, "F 1598")] == ["E 25P02", "Z E"]


def test_copy_in_a_query(table: Table, server: ScriptedServer) -> None:
    """What follows it in the text is run behind it, also another COPY; data that nobody wants is dropped."""
    client = table.join()
    for _ in range(2):
        server.on("copy t", COPY_IN)
    assert table.talk(client, "Q copy t from stdin; select 1; copy t from stdin") == [show(COPY_IN)]
    server.on("copy t", COPY_IN)
    assert table.talk(client, "d 1\\n", "c") == ["C COPY 1", "C SELECT", show(COPY_IN)]
    server.on("copy t", COPY_IN)
    assert table.talk(client, "f no") == ["E 57014 COPY from stdin failed: no", "Z I"]
    assert table.talk(client, "d 1\\n", "c") == []


def test_copy_that_cannot_begin(table: Table, server: ScriptedServer) -> None:
    """The server's error is the client's, and in a failed transaction the sandbox's own."""
    client = table.join()
    server.on("copy t", wire.error("42P01", "no such table"))
    assert table.talk(client, "Q copy t from stdin") == ["E 42P01 no such table", "Z I"]
    table.talk(client, "Q begin")
    server.on("select 1/0", DIVISION)
    table.talk(client, "Q select 1/0")
    assert table.talk(client, "Q copy t from stdin")[0].startswith("E 25P02")


def test_a_message_in_the_middle_of_copy(table: Table, server: ScriptedServer) -> None:
    """Sync and Flush mean nothing there; any other ends the connection, as the server does."""
    client = table.join()
    server.on("copy t", COPY_IN)
    server.on("copy t", COPY_IN)
    table.talk(client, "Q copy t from stdin")
    assert table.talk(client, "S", "H") == []

    assert table.talk(client, "Q select 1") == [
        "E 08P01 unexpected message type 0x51 during COPY from stdin",
        "E 08P01 terminating connection because protocol synchronization was lost",
    ]
    assert client.stage is Stage.ENDED


def test_a_message_behind_copy_in_a_pipeline(table: Table, server: ScriptedServer) -> None:
    """It ends the connection too, and nothing of what follows is done."""
    client = table.join()
    server.on("copy t", COPY_IN)
    server.on("copy t", COPY_IN)
    answers = table.talk(client, "P - copy t from stdin", "B - -", "E -", "E -", "S", "Q insert into t values (1)")

    assert answers[-2:] == [
        "E 08P01 unexpected message type 0x45 during COPY from stdin",
        "E 08P01 terminating connection because protocol synchronization was lost",
    ]
    assert client.stage is Stage.ENDED
    assert "insert into t values (1)" not in server.heard


def test_bytes_behind_the_text_of_a_query(table: Table) -> None:
    """They are refused."""
    assert table.talk(table.join(), "raw Q 610062") == ["E 08P01 invalid message format", "Z I"]


def test_a_unit_is_cancelled_before_its_turn(table: Table, server: ScriptedServer) -> None:
    """Its client is answered as its protocol wants it: by ReadyForQuery, or by skipping to Sync."""
    runner, client = table.join(), table.join()
    error = "E 57014 canceling statement due to user request"
    for data, answers in (
        (wire.query("select 1"), [error, "Z I"]),
        (wire.message(b"P", b"\0select 1\0\0\0") + wire.SYNC, [error, "Z I"]),
        (wire.message(b"P", b"\0select 1\0\0\0") + wire.FLUSH, [error]),
        (wire.query("select 1"), []),
        (wire.SYNC, ["Z I"]),
    ):
        table.heard(client)
        table.core.received(runner, wire.query("select pg_sleep(1)"))
        table.core.run()
        table.core.received(client, data)
        table.core.cancel(client.number, client.key)
        table.settle()
        assert [show(message) for message in table.heard(client)] == answers


def test_copy_is_cancelled_before_its_turn(table: Table, server: ScriptedServer) -> None:
    """What it waited for is forgotten; by Execute, the rest is skipped to Sync."""
    for begin, answers in (
        (["Q copy t from stdin"], ["E 57014 canceling statement due to user request", "Z I"]),
        (["P - copy t from stdin", "B - -", "E -", "H"], ["E 57014 canceling statement due to user request"]),
    ):
        runner, client = table.join(), table.join()
        server.on("copy t", COPY_IN)
        table.talk(client, *begin)
        table.core.received(runner, wire.query("select pg_sleep(1)"))
        table.core.run()
        table.core.received(client, wire.COPY_DONE)
        table.core.cancel(client.number, client.key)
        table.settle()
        assert [show(message) for message in table.heard(client)] == answers
        assert client.copying is None


def test_what_only_a_transaction_has(table: Table) -> None:
    """The server's errors and warnings for statements that make no sense alone; in a pipeline they make some."""
    client = table.join()

    assert table.talk(client, "Q lock table t")[0] == "E 25P01 LOCK TABLE can only be used in transaction blocks"
    assert table.talk(client, "Q declare c cursor for select 1")[0].startswith("E 25P01 DECLARE CURSOR can only")
    assert table.talk(client, "Q declare c cursor with hold for select 1") == ["C DECLARE", "Z I"]
    assert table.talk(client, "Q set local x.y = 1")[0] == "N 25P01 SET LOCAL can only be used in transaction blocks"
    assert table.talk(client, "Q set constraints all deferred")[0].startswith("N 25P01 SET CONSTRAINTS can only")
    assert table.talk(client, "Q lock table t; select 1") == ["C LOCK", "C SELECT", "Z I"]


def test_a_notice_is_shown_in_the_clients_words(table: Table, server: ScriptedServer) -> None:
    """Names that the sandbox has given are the client's own again, and positions those in its text."""
    client = table.join()
    table.talk(client, "Q prepare p as select 1")
    prefix = client.prefix.decode()
    server.on("execute", wire.notice("00000", f"of {prefix}p"), wire.command_complete("SELECT 1"))
    assert table.talk(client, "Q execute p") == ["N 00000 of p", "C SELECT 1", "Z I"]

    error = wire.message(b"E", f"SERROR\0VERROR\0C42601\0Mno {prefix}p\0P{9 + len(prefix) + 2}\0\0".encode())
    server.on("execute", error)
    assert table.talk(client, "Q execute p (x)") == ["E 42601 no p P=9", "Z I"]
    assert table.talk(client, "Q deallocate p") == ["C DEALLOCATE", "Z I"]
    assert client.statements == {}


def test_data_of_a_copy_that_was_cancelled_is_not_cancelled_again(table: Table) -> None:
    """It is answered by nothing: its COPY has been."""
    runner, client = table.join(), table.join()
    table.heard(client)
    table.core.received(runner, wire.query("select 1 as a"))
    table.core.run()
    table.core.received(client, wire.query("copy t from stdin") + wire.message(b"d", b"1\n") + wire.COPY_DONE)
    table.core.cancel(client.number, client.key)
    table.core.cancel(client.number, client.key)
    table.settle()

    said = [show(message) for message in table.heard(client)]
    assert said == ["E 57014 canceling statement due to user request", "Z I"]


def test_a_pipeline_when_the_data_of_a_copy_was_wrong(table: Table, server: ScriptedServer) -> None:
    """The COPY has failed before it, so it is skipped to its Sync."""
    client = table.join()
    server.on("copy t", COPY_IN)
    table.talk(client, "P - copy t from stdin", "B - -", "E -", "S")
    server.on("copy t", wire.error("22P02", "wrong data"), at="E")

    assert table.talk(client, "d x", "P - select 1", "B - -", "E -", "S") == ["E 22P02 wrong data", "Z I"]
    assert client.stage is Stage.READY


def test_a_pipeline_of_a_client_that_goes_at_once(table: Table, server: ScriptedServer) -> None:
    """What it has sent before Terminate, in the same packet, is done to its end: its Sync commits."""
    client = table.join()
    server.heard.clear()

    lines = ("P - insert into t values (1)", "B - -", "E -", "S", "Q select 2", "X")
    assert table.talk(client, *lines) == ["1", "2", "C INSERT", "Z I", "C SELECT", "Z I"]
    table.core.closed(client)
    table.talk(table.join(), "Q select 3")
    assert not any("ROLLBACK" in text for text in server.heard)


def test_a_long_text_is_not_remembered(table: Table, server: ScriptedServer) -> None:
    """It is judged each time, as is one about which there is a notice."""
    client = table.join()
    server.on("begin; select 'short'", wire.notice("22P06", "odd"), wire.PARSE_COMPLETE, at="P")
    for text in ("x" * 1_000, "short"):
        table.talk(client, f"Q begin; select '{text}'; commit")
        server.heard.clear()
        table.talk(client, f"Q begin; select '{text}'; commit")
        assert "!" in server.heard


def test_bytes_that_may_be_wrong_are_the_servers_to_judge(table: Table, server: ScriptedServer) -> None:
    """Also in a text that it would not get, for there is nothing in it, or nothing that it is asked."""
    client = table.join()
    wrong = wire.error("22021", "invalid byte sequence")

    assert table.talk(client, "Q -- \u00e9") == ["I", "Z I"]
    assert table.talk(client, "Q begin -- \u00e9") == ["C BEGIN", "Z T"]
    for text in ("-- \u00e9", "savepoint \u00e9", "select 1; commit; select '\u00e9'"):
        table.talk(client, "Q rollback")
        server.on(text.encode().decode("latin-1"), wrong, at="P")
        assert table.talk(client, f"Q {text}")[0] == "E 22021 invalid byte sequence"


def test_a_parameter_that_is_set_twice_in_a_text(table: Table, server: ScriptedServer) -> None:
    """Once for the session and once for the transaction: each value is read back before the next one is set."""
    client = table.join()

    assert table.talk(client, "Q set a = 1; set local b = 2; set local c = 3") == ["C SET"] * 3 + ["Z I"]
    said = [text.strip() for text in server.heard if " set " in f" {text}"]
    assert said == ["set a = 1", "set local b = 2; set local c = 3"]
