"""Statements that the sandbox answers itself: tags, notices and errors are the server's own."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import refusals
from tests.integration.sandbox.scripts import show

from .table import ScriptedServer, Table

_NOT_IN_TRANSACTION = "N 25P01 there is no transaction in progress"
_NOT_PREPARED = show(refusals.PREPARE_TRANSACTION)
_NO_SAVEPOINT = 'E 3B001 savepoint "b" does not exist'
_NEEDS = "E 25P01 {} can only be used in transaction blocks"


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        (["begin", "commit"], ["C BEGIN", "Z T", "C COMMIT", "Z I"]),
        (["start transaction", "end"], ["C START TRANSACTION", "Z T", "C COMMIT", "Z I"]),
        (
            ["begin", "begin"],
            ["C BEGIN", "Z T", "N 25001 there is already a transaction in progress", "C BEGIN", "Z T"],
        ),
        (["commit"], [_NOT_IN_TRANSACTION, "C COMMIT", "Z I"]),
        (["rollback"], [_NOT_IN_TRANSACTION, "C ROLLBACK", "Z I"]),
        (["commit and chain"], [_NEEDS.format("COMMIT AND CHAIN"), "Z I"]),
        (["rollback and chain"], [_NEEDS.format("ROLLBACK AND CHAIN"), "Z I"]),
        (
            ["begin", "commit and chain", "rollback and chain"],
            ["C BEGIN", "Z T", "C COMMIT", "Z T", "C ROLLBACK", "Z T"],
        ),
        (["prepare transaction 'x'"], [_NOT_IN_TRANSACTION, "C ROLLBACK", "Z I"]),
        (["begin", "prepare transaction 'x'"], ["C BEGIN", "Z T", _NOT_PREPARED, "Z I"]),
        (["select 1; prepare transaction 'x'"], ["C SELECT", _NOT_IN_TRANSACTION, _NOT_PREPARED, "Z I"]),
        (["prepare transaction 'x'; select 1"], [_NOT_IN_TRANSACTION, _NOT_PREPARED, "Z I"]),
        (["begin; release b", "prepare transaction 'x'"], ["C BEGIN", _NO_SAVEPOINT, "Z E", "C ROLLBACK", "Z I"]),
        (["savepoint a"], [_NEEDS.format("SAVEPOINT"), "Z I"]),
        (
            ["set transaction read only; discard temp; begin read write"],
            ["C SET", "C DISCARD TEMP", "E 25001 transaction read-write mode must be set before any query", "Z I"],
        ),
        (["release a"], [_NEEDS.format("RELEASE SAVEPOINT"), "Z I"]),
        (["rollback to a"], [_NEEDS.format("ROLLBACK TO SAVEPOINT"), "Z I"]),
        (["begin; savepoint a; release a"], ["C BEGIN", "C SAVEPOINT", "C RELEASE", "Z T"]),
        (["begin; savepoint a; rollback to a"], ["C BEGIN", "C SAVEPOINT", "C ROLLBACK", "Z T"]),
        (["begin; release b"], ["C BEGIN", 'E 3B001 savepoint "b" does not exist', "Z E"]),
        (["begin; rollback to b"], ["C BEGIN", 'E 3B001 savepoint "b" does not exist', "Z E"]),
        (["begin read only; set transaction read write"], ["C BEGIN", "C SET", "Z T"]),
        (
            ["set transaction read only"],
            ["N 25P01 SET TRANSACTION can only be used in transaction blocks", "C SET", "Z I"],
        ),
        (["set session characteristics as transaction read only"], ["C SET", "Z I"]),
        (["begin; set transaction isolation level read committed"], ["C BEGIN", "C SET", "Z T"]),
        (["set transaction_read_only = on"], ["C SET", "Z I"]),
        (
            ["begin; savepoint a; set transaction read only; release a"],
            ["C BEGIN", *"C SAVEPOINT,C SET,C RELEASE,Z T".split(",")],
        ),
        (["reset all"], ["C RESET", "Z I"]),
        (["close all"], ["C CLOSE CURSOR ALL", "Z I"]),
        (["deallocate all"], ["C DEALLOCATE ALL", "Z I"]),
        (["discard temp"], ["C DISCARD TEMP", "Z I"]),
        (["discard all"], ["C DISCARD ALL", "Z I"]),
        (
            ["begin", "discard all"],
            ["C BEGIN", "Z T", "E 25001 DISCARD ALL cannot run inside a transaction block", "Z E"],
        ),
    ],
    ids=lambda value: "; ".join(value) if isinstance(value, list) and " " in value[0] + " " else None,
)
def test_answers(table: Table, lines: list[str], answers: list[str]) -> None:
    """What the server would say, and its transaction status."""
    client = table.join()

    assert [answer for line in lines for answer in table.talk(client, f"Q {line}")] == answers


@pytest.mark.parametrize(
    "lines",
    [
        ["begin isolation level serializable"],
        ["begin", "set transaction isolation level repeatable read"],
        ["set session characteristics as transaction isolation level serializable", "begin"],
        ["begin", "prepare transaction 'x'"],
    ],
)
def test_refused(table: Table, lines: list[str]) -> None:
    """What one transaction cannot give is refused with the way out."""
    client = table.join()
    *_, error, _ = [answer for line in lines for answer in table.talk(client, f"Q {line}")]

    assert error.startswith("E 0A000")
    assert 'isolation="database"' in error


def test_a_stricter_level_for_reading_lasts_until_another_writes(table: Table) -> None:
    """It sees what it should until then."""
    reader, writer = table.join(), table.join()
    table.talk(reader, "Q begin isolation level repeatable read read only")
    assert table.talk(reader, "Q select * from t") == ["C SELECT", "Z T"]
    table.talk(writer, "Q insert into t values (1)")

    error, _ = table.talk(reader, "Q select * from t")
    assert error.startswith("E 40001 this transaction's snapshot cannot be kept")


def test_a_failed_transaction(table: Table, server: ScriptedServer) -> None:
    """Nothing but its end is allowed, and its COMMIT is a ROLLBACK."""
    client = table.join()
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q begin")
    assert table.talk(client, "Q select 1/0") == ["E 22012 division by zero", "Z E"]
    assert table.talk(client, "Q select 1")[0].startswith("E 25P02")
    assert table.talk(client, "Q savepoint a")[0].startswith("E 25P02")
    assert table.talk(client, "Q commit and chain") == ["C ROLLBACK", "Z T"]
    assert table.talk(client, "Q rollback") == ["C ROLLBACK", "Z I"]


def test_a_write_is_undone_by_the_server_and_a_read_is_not(table: Table, server: ScriptedServer) -> None:
    """A rollback costs the server a statement only if there is something to undo."""
    client = table.join()
    for statement, undone in (("select 1", 0), ("insert into t values (1)", 1)):
        server.heard.clear()
        for line in ("begin", statement, "rollback", "select 2"):
            table.talk(client, f"Q {line}")
        assert sum("ROLLBACK TO" in text for text in server.heard) == undone


def test_a_savepoint_brings_back_what_was_set(table: Table) -> None:
    """Parameters, notifications and temporary tables of a savepoint that is returned to are as they were."""
    client, listener = table.join(), table.join()
    table.talk(listener, "Q listen news")
    table.heard(listener)
    table.talk(client, "Q begin; notify news, 'kept'; savepoint a")
    table.talk(client, "Q set work_mem = '1MB'", "Q notify news, 'undone'", "Q create temp table x (id int)")
    assert client.parameters.session == {"work_mem": "x"}
    assert set(client.temporary) == {"x"}

    table.talk(client, "Q rollback to a")
    assert client.parameters.session == {}
    assert client.temporary == {}
    table.talk(client, "Q commit")
    assert list(map(show, table.heard(listener))) == ["A news kept"]


def test_discard_all_forgets_everything_of_its_client(table: Table) -> None:
    """Statements, cursors, temporary tables, channels and parameters; those of another client stay."""
    client, other = table.join(), table.join()
    for each in (client, other):
        table.talk(each, "P s select 1", "S")
        table.talk(each, "Q listen news", "Q set work_mem = '1MB'")
    table.talk(client, "Q create temp table x (id int)", "Q declare c cursor with hold for select 1")

    table.talk(client, "Q discard all")

    assert (client.statements, client.cursors, client.temporary, client.channels) == ({}, {}, {}, set())
    assert client.parameters.session == {}
    assert (set(other.statements), other.channels) == ({b"s"}, {"news"})
    assert other.parameters.session == {"work_mem": "x"}


@pytest.mark.parametrize(
    ("before", "modes", "text"),
    [
        (
            "select 1",
            "isolation level read uncommitted",
            "SET TRANSACTION ISOLATION LEVEL must be called before any query",
        ),
        ("savepoint a", "isolation level read uncommitted", "SET TRANSACTION ISOLATION LEVEL must not be called in a"),
        ("select 1", "read write", "transaction read-write mode must be set before any query"),
        ("savepoint a", "read write", "cannot set transaction read-write mode inside a read-only transaction"),
        ("select 1", "deferrable", "SET TRANSACTION [NOT] DEFERRABLE must be called before any query"),
        ("savepoint a", "deferrable", "SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction"),
        ("show work_mem", "read write", ""),
        ("show work_mem", "isolation level read uncommitted", ""),
        ("show work_mem", "not deferrable", ""),
        ("select 1", "isolation level read committed, read only", ""),
    ],
)
def test_modes_that_are_set_too_late(table: Table, before: str, modes: str, text: str) -> None:
    """After the first query, or in a savepoint, a transaction keeps what cannot be changed."""
    client = table.join()
    table.talk(client, "Q begin read only", f"Q {before}")

    answer = table.talk(client, f"Q set transaction {modes}")[0]
    assert answer.startswith(f"E 25001 {text}" if text else "C SET")


def test_a_savepoint_keeps_the_modes(table: Table) -> None:
    """A return to it, or its release, brings back whether the transaction may write."""
    for end in ("rollback to a", "release a"):
        client = table.join()
        table.talk(client, "Q begin; savepoint a; set transaction read only")
        assert client.transaction is not None
        assert client.transaction.read_only
        table.talk(client, f"Q {end}")
        assert not client.transaction.read_only


def test_a_chain_keeps_the_modes(table: Table) -> None:
    """The transaction that follows has the level of the one before, and sees nothing that is written after it."""
    client = table.join()
    table.talk(client, "Q begin isolation level repeatable read read only", "Q commit and chain")

    assert client.transaction is not None
    assert (client.transaction.isolation, client.transaction.stable_since) == ("repeatable read", 0)


def test_a_stable_transaction_and_a_rollback_of_another(table: Table) -> None:
    """What is written after it is noticed, though less is there then than when it began."""
    reader, first, second = table.join(), table.join(), table.join()
    table.talk(first, "Q begin", "Q insert into t values (1)", "Q insert into t values (2)")
    table.talk(reader, "Q begin isolation level repeatable read read only")
    table.talk(first, "Q rollback")
    assert table.talk(reader, "Q select id from t") == ["C SELECT", "Z T"]

    table.talk(second, "Q insert into t values (3)")
    (error, _) = table.talk(reader, "Q select id from t")
    assert error.startswith("E 40001")
    table.talk(reader, "Q rollback", "Q begin")
    assert table.talk(reader, "Q select id from t") == ["C SELECT", "Z T"]


def test_a_function_that_would_set_the_modes_of_all(table: Table) -> None:
    """It is refused."""
    client = table.join()

    (error, _) = table.talk(client, "Q select set_config('transaction_read_only', 'on', true)")
    assert error.startswith('E 0A000 parameter "transaction_read_only" cannot be set by a function in this test')


def test_limits_of_time_that_end_a_session(table: Table, server: ScriptedServer) -> None:
    """The server reads them, and has none of them when it waits; a client finds its own where it asks."""
    client = table.join(idle_session_timeout="2000")
    assert table.talk(client, "Q set local transaction_timeout = 1") == [
        "N 25P01 SET LOCAL can only be used in transaction blocks",
        "C SET",
        "Z I",
    ]
    assert table.talk(client, "Q set idle_session_timeout = 1") == ["C SET", "Z I"]
    assert "set_config('idle_session_timeout','0',false)" in server.heard[-1]
    assert client.parameters.effective == {"idle_session_timeout": "x"}

    server.heard.clear()
    table.talk(client, "Q select 1 as a")
    assert not any("idle_session_timeout" in text for text in server.heard)
    table.talk(client, "Q show idle_session_timeout")
    assert "set_config('idle_session_timeout','x',false)" in server.heard[-3]
    assert "set_config('idle_session_timeout','0',false)" in server.heard[-1]

    assert table.talk(client, "Q reset idle_session_timeout") == ["C RESET", "Z I"]
    assert client.parameters.effective == {"idle_session_timeout": "2000"}
    server.on("set idle_session_timeout", wire.error("22023", "invalid value"))
    assert table.talk(client, "Q set idle_session_timeout = y") == ["E 22023 invalid value", "Z I"]


@pytest.mark.parametrize(
    ("before", "snapshot", "answer"),
    [
        ("begin; select 1", "1-2", "E 25001 SET TRANSACTION SNAPSHOT must be called before any query"),
        ("begin; savepoint a", "1-2", "E 25001 SET TRANSACTION SNAPSHOT must be called before any query"),
        ("begin", "1-2", "E 0A000 a snapshot-importing transaction must have isolation level SERIALIZABLE or"),
        ("begin isolation level serializable read only", "x", 'E 22023 invalid snapshot identifier: "x"'),
        ("begin isolation level serializable read only", "1-2", "E 0A000 a snapshot of another transaction is not"),
    ],
)
def test_a_snapshot_of_another_transaction(table: Table, before: str, snapshot: str, answer: str) -> None:
    """What the server would object to comes first; then that none can be had."""
    client = table.join()
    table.talk(client, f"Q {before}")

    assert table.talk(client, f"Q set transaction snapshot '{snapshot}'")[0].startswith(answer)
