"""Who is served next, what the test run is told, and what happens when the server has gone."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Stage

from .table import PASSWORD, REPORTED, ScriptedServer, Table


def test_a_cancel_request_by_connection(table: Table, server: ScriptedServer) -> None:
    """It takes the process id and the key; a statement that waits for its turn is not run."""
    runner, waiter = table.join(), table.join()
    table.talk(runner, "Q insert into t values (0)")
    table.heard(waiter)
    table.core.received(runner, wire.query("select 1"))
    table.core.run()
    table.core.received(waiter, wire.query("select 2"))
    for client, key in ((waiter, b"????"), (waiter, waiter.key), (runner, runner.key)):
        canceller = table.core.connected()
        table.core.received(canceller, wire.cancel_request(client.number, key))
        assert canceller.stage is Stage.ENDED
    table.core.cancel(99, b"")
    sent = table.sent()
    while sent:
        table.hear(server.answer(sent))
        sent = table.sent()

    assert table.told(waiter) == ["E 57014 canceling statement due to user request", "Z I"]
    assert "select 2" not in server.heard


def test_wrong_bytes_end_the_connection(table: Table) -> None:
    """They are told, and the others go on."""
    client, other = table.join(), table.join()
    table.talk(client, "Q begin")
    assert table.talk(client, "raw % 00") == ["E 08P01 invalid frontend message type 37"]
    assert client.stage is Stage.ENDED
    assert table.talk(other, "Q select 1") == ["C SELECT", "Z I"]


def test_who_is_gone_is_forgotten(table: Table, server: ScriptedServer) -> None:
    """Its transaction is undone, and its statements, cursors and temporary tables are closed on the server."""
    client, other = table.join(), table.join()
    table.talk(client, "Q create temp table x (id int)", "P s select 1", "S")
    table.talk(client, "Q begin; insert into t values (1); declare c cursor for select 1")
    table.core.closed(client)
    table.settle()
    server.heard.clear()

    table.talk(other, "Q select 1")
    assert any("ROLLBACK TO" in text for text in server.heard)
    assert any('DROP TABLE IF EXISTS pg_temp."x" CASCADE' in text for text in server.heard)
    assert set(table.core.session.clients) == {other.number}


# The test run --------------------------------------------------------------------------------------------------------


def test_a_frame_is_undone_and_reported(table: Table, server: ScriptedServer) -> None:
    """Whether anything was written, who was left in a transaction, and what connections keep."""
    client, other = table.join(), table.join()
    table.ask(table.core.push("inner"))
    assert table.ask(table.core.wrote()) == {"wrote": False}
    table.talk(client, "Q listen news")
    table.talk(other, "Q begin; insert into t values (1)")
    assert table.ask(table.core.wrote()) == {"wrote": True}

    report = table.ask(table.core.pop())
    assert report["wrote"]
    assert report["in_transaction"] == [f"{other.describe()}"]
    assert [each["what"] for each in report["leftovers"]] == ["LISTEN news"]
    assert any("ROLLBACK TO" in text for text in server.heard)
    assert table.talk(other, "Q select 1")[0].startswith("E 25P02 this transaction was undone when the test")
    assert table.talk(other, "Q rollback to a")[0].startswith("E 25P02 this transaction was undone")
    assert table.talk(other, "Q rollback") == ["C ROLLBACK", "Z I"]


def test_a_lost_transaction_does_not_outlive_the_next_begin(table: Table) -> None:
    """A client that begins anew takes the one before for ended, and its driver may never roll it back."""
    client = table.join()
    table.talk(client, "Q begin; set x.y = 1")
    table.ask(table.core.pop())
    table.ask(table.core.push("the next test"))
    assert table.talk(client, "Q select 1")[-1] == "Z E"

    assert table.talk(client, "Q BEGIN;") == ["C BEGIN", "Z T"]
    assert table.talk(client, "Q select 1") == ["C SELECT", "Z T"]
    assert table.talk(client, "Q commit") == ["C COMMIT", "Z I"]


@pytest.mark.parametrize(
    "said",
    [
        "Q begin",
        "Q listen news",
        "Q create table x (id int)",
        "Q create temp table x (id int)",
        "Q select pg_advisory_lock(1)",
    ],
)
def test_what_keeps_a_frame_from_being_clean(table: Table, said: str) -> None:
    """As long as its end may have something to report it is not clean; then it is again."""
    client = table.join()
    table.talk(client, "Q insert into t values (1)")
    assert table.core.is_clean

    table.talk(client, said)
    assert not table.core.is_clean
    table.core.closed(client)
    table.ask(table.core.pop())
    assert table.core.is_clean


def test_a_frame_is_not_clean_while_a_statement_runs(table: Table) -> None:
    """It is when the server has answered; not so when the session is lost."""
    client = table.join()
    table.talk(client, "Q select 1")
    table.core.received(client, wire.query("select 2"))
    assert not table.core.is_clean
    table.core.run()
    assert not table.core.is_clean
    table.settle()
    assert table.core.is_clean

    table.core.break_down("gone")
    assert not table.core.is_clean


def test_tables_and_locks_that_are_left(table: Table, server: ScriptedServer) -> None:
    """Only what the server still has is reported; the locks are released."""
    client = table.join()
    table.talk(client, "Q create temp table x (id int)")
    table.talk(client, "Q select pg_advisory_lock(1)")
    server.on("pg_my_temp_schema", wire.message(b"D", b"\0\1\0\0\0\1x"))
    server.on("locktype", wire.message(b"D", b"\0\1\0\0\0\1l"))

    report = table.ask(table.core.pop())
    assert [each["what"] for each in report["leftovers"]] == ["temporary table x", "advisory lock"]
    assert any("pg_advisory_unlock_all" in text for text in server.heard)
    assert client.temporary == {}


def test_a_lock_that_a_failed_query_has_taken_is_left(table: Table, server: ScriptedServer) -> None:
    """No rollback releases one that is a session's own."""
    client = table.join()
    server.on("1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q select pg_advisory_lock(1); select 1/0")
    server.on("locktype", wire.message(b"D", b"\0\1\0\0\0\1l"))

    report = table.ask(table.core.pop())
    assert [each["what"] for each in report["leftovers"]] == ["advisory lock"]
    assert any("pg_advisory_unlock_all" in text for text in server.heard)


def test_definitions_of_a_frame_end_connections_that_may_remember_them(table: Table) -> None:
    """One with statements in store is closed after the rollback of a table."""
    client, other = table.join(), table.join()
    table.talk(client, "P s select 1", "S")
    table.talk(other, "Q create table x (id int)")
    table.ask(table.core.pop())

    assert (client.stage, other.stage) == (Stage.ENDED, Stage.READY)


def test_a_rollback_that_fails_breaks_the_sandbox(table: Table, server: ScriptedServer) -> None:
    """Everybody is told; whoever comes later too, until the session is renewed."""
    client = table.join()
    table.talk(client, "Q insert into t values (1)")
    server.on("ROLLBACK", wire.error("XX000", "no"))

    table.ask(table.core.pop())
    assert "has ended: no" in table.core.broken
    assert table.told(client)[0].startswith("E 57P01 terminating connection because the test server has gone away")
    late = table.core.connected()
    table.feed(late, wire.startup({"user": "u", "database": "d"}) + PASSWORD)
    assert table.told(late)[-1].startswith("E 57P01")
    table.core.closed(client)

    server.status = "I"
    table.ask(table.core.push("the next test"))
    table.core.renew(dict(REPORTED))
    assert [frame.name for frame in table.core.session.history.frames] == ["the next test"]
    assert table.talk(table.join(), "Q select 1") == ["C SELECT", "Z I"]


def test_a_statement_that_commits_breaks_the_sandbox(table: Table, server: ScriptedServer) -> None:
    """The transaction that isolates the test has ended: no further statement is believed."""
    client = table.join()
    table.talk(client, "Q select 1")
    server.status = "I"

    assert table.talk(client, "Q select 2")[-1].startswith("E 57P01")
    assert "a statement has committed it" in table.core.broken


def test_a_savepoint_that_cannot_be_set_breaks_the_sandbox(table: Table, server: ScriptedServer) -> None:
    """The server's words for it are the reason."""
    client = table.join()
    table.talk(client, "Q insert into t values (1)")
    server.on("SAVEPOINT", wire.error("53200", "out of memory"))

    assert table.talk(client, "Q insert into t values (2)")[-1].startswith("E 57P01")
    assert table.core.broken.endswith("out of memory")


def test_what_was_said_before_the_end_of_a_test_is_a_part_of_it(table: Table, server: ScriptedServer) -> None:
    """All of it, though clients are served by turns, and none of what is said after it."""
    first, second = table.join(), table.join()
    answers: list[Any] = []
    table.ask(table.core.push("a test"))
    table.core.received(first, b"".join(wire.query(f"insert into t values ({n})") for n in range(3)))
    table.core.received(second, wire.query("insert into t values (4)"))
    table.core.ask(table.core.pop, answers.append)
    table.core.received(first, wire.query("insert into t values (5)"))
    table.settle()

    said = [text for text in server.heard if text.startswith(("insert", "ROLLBACK"))]
    assert sorted(said[:4]) == [f"insert into t values ({n})" for n in (0, 1, 2, 4)]
    assert [text.split()[0] for text in said[4:]] == ["ROLLBACK", "insert"]
    assert answers[0]["wrote"] is True


@pytest.mark.parametrize("waits", [False, True])
def test_who_has_ended_before_the_end_of_a_test_has_left_nothing(table: Table, *, waits: bool) -> None:
    """Whether or not its last statement was still to be served, and its connection to be closed."""
    client = table.join()
    answers: list[Any] = []
    table.ask(table.core.push("a test"))
    table.talk(client, "Q listen news", "Q begin")
    table.core.received(client, wire.query("insert into t values (1)") * waits + wire.TERMINATE)
    table.core.ask(table.core.pop, answers.append)
    table.settle()
    table.core.closed(client)
    table.settle()

    assert (answers[0]["in_transaction"], answers[0]["leftovers"]) == ([], [])
    assert table.core.find(client.number) is None


@pytest.mark.parametrize("last", ["", "insert into t values (2)", "ROLLBACK"])
def test_what_an_ended_connection_has_not_committed_is_undone_before_others_are_served(
    table: Table, server: ScriptedServer, last: str
) -> None:
    """Though the next one has sent its statement already, and the connection is not closed yet."""
    first, second = table.join(), table.join()
    table.talk(first, "Q begin", "Q insert into t values (1)")
    server.heard.clear()
    table.core.received(first, (wire.query(last) if last else b"") + wire.TERMINATE)
    table.core.received(second, wire.query("select * from t"))
    table.settle()

    said = [text.split(maxsplit=1)[0] for text in ";".join(server.heard).split(";")]
    assert said.index("ROLLBACK") < said.index("select")
    assert table.core.session.dirty_reads.found == []


def test_the_loss_of_the_session_is_told_to_who_waits(table: Table) -> None:
    """The test run's request among them."""
    client = table.join()
    answers: list[Any] = []
    table.core.received(client, wire.query("select pg_sleep(9)"))
    table.core.run()
    assert table.core.delays_the_test_run is None
    table.core.ask(table.core.pop, answers.append)
    task = table.core.delays_the_test_run
    assert task is not None
    assert task.client is client
    assert table.core.owes(client)
    assert table.core.find(client.number) is client
    table.core.break_down("killed")

    assert str(answers[0]) == "killed"
    assert table.core.delays_the_test_run is None


def test_temporary_tables_of_a_wider_frame_are_there_again(table: Table, server: ScriptedServer) -> None:
    """Whatever became of them meanwhile; those of a client that has gone are dropped once more."""
    stays, goes, begins = table.join(), table.join(), table.join()
    table.ask(table.core.push("module"))
    table.talk(stays, "Q create temp table x (id int)")
    table.talk(goes, "Q create temp table y (id int)")
    table.talk(begins, "Q begin", "Q create temp table z (id int)")
    table.ask(table.core.push("test"))

    table.talk(begins, "Q rollback")
    table.talk(stays, "Q drop table x", "Q create temp table v (id int)")
    table.talk(goes, "X")
    table.settle()
    server.heard.clear()
    table.ask(table.core.pop())

    assert (set(stays.temporary), set(begins.temporary)) == ({"x"}, set())
    assert any(text.endswith('DROP TABLE IF EXISTS pg_temp."y" CASCADE') for text in server.heard)
    assert table.core.session.has_temporary


def test_temporary_tables_of_a_transaction_that_began_before_the_frame(table: Table) -> None:
    """Its rollback in the frame is not taken back with it."""
    client = table.join()
    table.ask(table.core.push("module"))
    table.talk(client, "Q begin", "Q create temp table x (id int)")
    table.ask(table.core.push("test"))

    table.talk(client, "Q rollback")
    table.ask(table.core.pop())

    assert client.temporary == {}


def test_what_has_only_read_goes_on_in_the_frame_below(table: Table) -> None:
    """A fixture's transaction and lock outlive its set-up, and end with the fixture below."""
    client = table.join()
    table.ask(table.core.push("outer"))
    table.ask(table.core.push("inner"))
    table.talk(client, "Q begin", "Q select pg_advisory_lock(1)")

    report = table.ask(table.core.merge())
    assert len(report["in_transaction"]) == 1
    assert table.core.session.locked_in == {len(table.core.session.history.frames)}
    table.ask(table.core.push("a test"))
    assert table.ask(table.core.pop())["in_transaction"] == []
    assert table.talk(client, "Q select 1") == ["C SELECT", "Z T"]
    assert len(table.ask(table.core.pop())["in_transaction"]) == 1
    assert table.talk(client, "Q select 1")[0].startswith("E 25P02")


def test_what_has_only_read_comes_back_with_its_frame(table: Table) -> None:
    """A test that makes room for a wider fixture has its transaction afterwards, and ends with it."""
    client = table.join()
    table.ask(table.core.push("a test"))
    table.talk(client, "Q begin", "Q select 1", "Q listen a")
    table.ask(table.core.set_aside())
    table.ask(table.core.push("fixture"))
    assert table.ask(table.core.merge())["in_transaction"] == []
    table.ask(table.core.push("a test", is_back=True))

    assert table.talk(client, "Q select 1") == ["C SELECT", "Z T"]
    assert len(table.ask(table.core.pop())["in_transaction"]) == 1
    assert table.talk(client, "Q select 1")[0].startswith("E 25P02")


@pytest.mark.parametrize("is_for_good", [True, False])
def test_what_is_written_meanwhile_is_undone_after_all(table: Table, *, is_for_good: bool) -> None:
    """A thread may write between the question whether anything was written and the order."""
    client = table.join()
    table.ask(table.core.push("a test"))
    table.talk(client, "Q begin", "Q insert into t values (1)")
    if is_for_good:
        assert table.ask(table.core.merge())["wrote"]
    else:
        table.ask(table.core.set_aside())
        table.ask(table.core.push("a test", is_back=True))

    assert table.core.session.history.clock == 0
    assert table.talk(client, "Q select 1")[0].startswith("E 25P02")


def test_a_frame_that_comes_back_though_none_was_set_aside(table: Table) -> None:
    """As after the loss of the server's session in between: it begins anew."""
    table.ask(table.core.push("a test", is_back=True))

    assert not table.ask(table.core.pop())["wrote"]
