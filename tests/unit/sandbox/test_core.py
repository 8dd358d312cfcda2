"""Who may connect, who is served next, what the test run is told, and what happens when the server has gone."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Client, Stage
from tests.integration.sandbox.scripts import Step, show

from .table import REPORTED, ScriptedServer, Table

PASSWORD = wire.message(b"p", b"pw\0")


def told(table: Table, client: Client) -> list[str]:
    """Return what a client was sent, in readable lines."""
    return [show(message) for message in table.heard(client)]


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

    assert told(table, client)[-1].startswith(error)
    assert client.stage is Stage.ENDED


def test_a_log_in(table: Table) -> None:
    """Encryption is declined, a newer protocol negotiated, and the client gets its key and the server's parameters."""
    client = table.core.connected()
    for code in (wire.SSL_REQUEST, wire.GSSENC_REQUEST):
        table.feed(client, wire.pack_int32(8) + wire.pack_int32(code))
    assert bytes(client.out) == b"NN"
    client.out.clear()
    table.feed(client, wire.startup({"user": "u", "database": "d", "_pq_.x": "1"}, 3 << 16 | 9))
    assert [line[0] for line in told(table, client)] == ["v", "R"]
    assert len(client.key) == 32
    table.feed(client, PASSWORD)

    lines = told(table, client)
    assert [line for line in lines if line[0] == "S"] == [f"S {name}={value}" for name, value in REPORTED.items()]
    assert lines[-1] == "Z I"


def test_start_up_parameters_that_the_server_refuses(table: Table, server: ScriptedServer) -> None:
    """The client hears the server's error, as a fatal one, and nobody else notices."""
    server.on("'work_mem','much'", wire.error("22023", "invalid value"))
    client = table.join(work_mem="much")

    assert wire.error_fields(table.heard(client)[-1][5:])["S"] == "FATAL"
    assert client.stage is Stage.ENDED
    assert table.talk(table.join(statement_timeout="1000"), "Q select 1") == ["C SELECT", "Z I"]


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

    assert told(table, waiter) == ["E 57014 canceling statement due to user request", "Z I"]
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


def test_a_dirty_read_keeps_a_frame_from_being_clean(table: Table) -> None:
    """It is to be reported, though nobody is in a transaction any more."""
    writer, reader = table.join(), table.join()
    table.talk(writer, "Q begin; insert into t values (1)")
    table.talk(reader, "Q select * from t")
    table.talk(writer, "Q commit")
    assert not table.core.is_clean

    assert table.ask(table.core.pop())["dirty_reads"]
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


def test_a_frame_is_not_clean_beside_an_own_session(table: Table) -> None:
    """What its client does in its own session the core does not know."""
    client = table.join()
    table.ask(table.core.enter_direct())
    table.talk(client, "Q select 1")
    assert not table.core.is_clean

    table.ask(table.core.leave_direct("the test"))
    assert table.core.is_clean


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
    assert told(table, client)[0].startswith("E 57P01 terminating connection because the test server has gone away")
    late = table.core.connected()
    table.feed(late, wire.startup({"user": "u", "database": "d"}) + PASSWORD)
    assert told(table, late)[-1].startswith("E 57P01")
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


# A database of the test's own ----------------------------------------------------------------------------------------


def test_a_client_moves_to_a_session_of_its_own_and_back(table: Table) -> None:
    """Between transactions; what it left open there is lost, and what it may have changed is reported."""
    client, busy = table.join(), table.join()
    table.talk(busy, "Q begin")
    table.ask(table.core.enter_direct())
    table.feed(client, wire.query("insert into t values (1)"))
    assert table.talk(busy, "Q select 1") == ["C SELECT", "Z T"]
    assert table.talk(busy, "Q commit") == ["C COMMIT", "Z I"]

    direct = table.outside.direct[client.number]
    assert bytes(direct.out) == wire.query("insert into t values (1)")
    table.core.cancel(client.number, client.key)
    assert table.outside.cancelled == [client]
    direct.receive(wire.READY["T"])
    report = table.ask(table.core.leave_direct("the test"))
    assert (report["wrote"], report["in_transaction"]) == (True, [client.describe()])
    assert table.outside.direct == {}
    assert table.talk(client, "Q select 1")[0].startswith("E 25P02 this transaction was undone")


def test_answers_about_parameters_are_not_kept_without_end(table: Table) -> None:
    """Where each connection comes with parameters of its own, such as a name."""
    for number in range(120):
        table.join(application_name=f"worker {number}")

    assert len(table.core.session.welcomes) == 100


def test_a_client_that_ends_in_its_own_session(table: Table) -> None:
    """That it has changed something is remembered, and who has a limit of time is known."""
    client, other = table.join(), table.join()
    table.ask(table.core.enter_direct())
    table.feed(client, wire.query("set statement_timeout = 1; insert into t values (1)"))
    table.feed(other, wire.query("select 1"))
    assert table.core.have_timeouts == {client.number}
    table.core.closed(client)

    report = table.ask(table.core.leave_direct("the test"))
    assert (report["wrote"], report["in_transaction"]) == (True, [])


def test_what_a_client_leaves_in_its_own_session(table: Table) -> None:
    """It is reported with the statement that left it."""
    client = table.join()
    table.ask(table.core.enter_direct())
    table.feed(client, wire.query("select pg_advisory_lock(1)"))
    table.outside.direct[client.number].receive(wire.READY["I"])
    table.outside.kept = ["advisory lock"]

    (left,) = table.ask(table.core.leave_direct("the test"))["leftovers"]
    assert (left["client"], left["what"], left["sql"]) == (1, "advisory lock", "select pg_advisory_lock(1)")


def test_a_client_that_does_not_wait_for_its_greeting(table: Table) -> None:
    """It has its own session too, once it has been greeted."""
    table.ask(table.core.enter_direct())
    client = table.core.connected()
    query = wire.query("select 1")
    table.feed(client, wire.startup({"user": "u", "database": "d"}) + PASSWORD + query)

    assert bytes(table.outside.direct[client.number].out) == query


def test_a_client_that_hangs_up_in_its_own_session(table: Table) -> None:
    """It is there until the session has answered all and ends; a test that ends before that knows nothing of it."""
    client, other = table.join(), table.join()
    table.ask(table.core.enter_direct())
    for each in (client, other):
        table.feed(each, wire.query("begin"))
        table.outside.direct[each.number].receive(wire.READY["T"])
        table.core.hung_up(each)
        assert table.core.owes(each)
        assert bytes(table.outside.direct[each.number].out).endswith(wire.TERMINATE)
    table.core.direct_ended(client)
    assert not table.core.owes(client)

    report = table.ask(table.core.leave_direct("the test"))
    assert (report["in_transaction"], table.core.owes(other)) == ([], False)


def test_a_client_that_waits_in_its_own_session_when_the_test_ends(table: Table) -> None:
    """It is told that no answer will come; one that waits for nothing stays."""
    client, idle = table.join(), table.join()
    table.ask(table.core.enter_direct())
    table.feed(client, wire.query("select 1"))
    table.feed(idle, wire.query("select 1"))
    table.outside.direct[idle.number].receive(wire.READY["I"])
    told(table, client)
    table.ask(table.core.leave_direct("the test"))

    assert told(table, client)[0].startswith("E 57P01 terminating connection because the test that it worked for")
    assert (client.stage, idle.stage) == (Stage.ENDED, Stage.READY)


def test_a_client_moves_once_its_error_is_over(table: Table, server: ScriptedServer) -> None:
    """Until its Sync it has no session of its own."""
    client = table.join()
    server.on("selekt", wire.error("42601", "syntax error"), at="P")
    table.talk(client, "P - selekt", "H")
    table.ask(table.core.enter_direct())

    assert table.talk(client, "S") == ["Z I"]
    table.feed(client, wire.query("select 1"))
    assert client.number in table.outside.direct


def test_a_statement_that_was_replaced_elsewhere(table: Table, server: ScriptedServer) -> None:
    """What a client has closed and prepared anew in its own session is closed on the shared one too."""
    client = table.join()
    table.talk(client, "P s select 1", "S")
    table.ask(table.core.enter_direct())
    table.talk(client, "C s s", "P s select 2", "S")
    table.outside.direct[client.number].receive(wire.READY["I"])
    table.ask(table.core.leave_direct("the test"))
    table.feed(client, b"".join(Step("", *step).data for step in (("B", "- s"), ("E", "-"))))
    table.core.received(client, wire.SYNC)
    table.core.run()

    sent = table.sent()
    assert wire.message(b"C", b"Schatdify.1.s\0") in sent
    assert sent.index(b"Schatdify.1.s\0") < sent.index(b"chatdify.1.s\0select 2")


def test_no_session_of_ones_own_can_be_had(table: Table) -> None:
    """The client is told why."""
    client = table.join()
    table.heard(client)
    table.ask(table.core.enter_direct())
    table.outside.refusal = "too many connections"
    table.feed(client, wire.query("select 1"))

    assert told(table, client)[0].endswith("D=too many connections")
    assert client.stage is Stage.ENDED


def test_dirty_reads(table: Table) -> None:
    """A read of what another has not committed is reported, and refused where that is asked for; not the test's own."""
    writer, reader, own = table.join(), table.join(), table.join()
    table.core.own(own.number, is_own=True)
    table.talk(writer, "Q begin")
    table.talk(writer, "Q insert into t values (1)")
    table.talk(reader, "Q insert into t values (2)")
    assert table.talk(own, "Q select * from t") == ["C SELECT", "Z I"]
    assert table.talk(reader, "Q select * from t") == ["C SELECT", "Z I"]
    table.core.session.refuses_dirty_reads = True
    table.core.own(own.number, is_own=False)
    assert table.talk(own, "Q select * from t")[0].startswith('E 55000 dirty read of table "t"')

    found = table.ask(table.core.pop())["dirty_reads"]
    assert [(each["reader"], each["writer"], each["table"]) for each in found] == [
        (reader.number, writer.number, "t"),
        (own.number, writer.number, "t"),
    ]


@pytest.mark.parametrize(
    ("wrote", "read"),
    [
        ("insert into users values ('Ann')", "insert into notes values ('please update users')"),
        ("insert into users values ('Ann')", "select * from notes where text = 'all users' -- or users"),
        ("insert into users values ('Ann')", "select $$users$$, E'\\'users', \"a users\" /* users */ from notes"),
        ("insert into notes values ('please update users')", "select * from users"),
        ("insert into users values ('Ann')", "/* a tag */ insert into users values ('Bob')"),
    ],
)
def test_what_looks_like_a_dirty_read(table: Table, wrote: str, read: str) -> None:
    """Words in constants and comments are no tables, and a comment in front of an INSERT changes nothing."""
    writer, reader = table.join(), table.join()
    table.talk(writer, "Q begin")
    table.talk(writer, f"Q {wrote}")
    table.talk(reader, f"Q {read}")

    assert table.ask(table.core.pop())["dirty_reads"] == []


def test_what_is_a_dirty_read_all_the_same(table: Table) -> None:
    """A quoted table, between constants and comments."""
    writer, reader = table.join(), table.join()
    table.talk(writer, "Q begin")
    table.talk(writer, "Q /* one */ update \"users\" set name = 'it''s' -- two")
    table.talk(reader, 'Q select \'x\' as "it\'s", $$y$$, $1 from "users"')

    (found,) = table.ask(table.core.pop())["dirty_reads"]
    assert found["table"] == "users"


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


def test_who_listens_listens_in_a_database_of_its_own(table: Table) -> None:
    """From its beginning, since such a client may say nothing; what it has heard there before is no leftover."""
    listener, silent = table.join(), table.join()
    table.talk(listener, "Q listen news")
    table.ask(table.core.enter_direct())

    assert set(table.outside.direct) == {listener.number}
    assert silent.number not in table.outside.direct
    direct = table.outside.direct[listener.number]
    assert b'LISTEN "news"' in direct.out
    direct.receive(wire.command_complete("LISTEN") + wire.READY["I"])
    direct.left["LISTEN more"] = "listen more"
    table.outside.kept = ["LISTEN more", "LISTEN news"]
    report = table.ask(table.core.leave_direct("test"))
    assert [each["what"] for each in report["leftovers"]] == ["LISTEN more"]
    assert listener.channels == {"news"}


def test_an_encoding_outlives_a_session_of_ones_own(table: Table) -> None:
    """A driver goes on with the one that it has asked for there."""
    client, other = table.join(), table.join()
    table.ask(table.core.enter_direct())
    for each, encoding in ((client, "LATIN1"), (other, "UTF8")):
        table.feed(each, wire.query(f"set client_encoding to {encoding}"))
        said = wire.parameter_status("client_encoding", encoding) + wire.command_complete("SET") + wire.READY["I"]
        table.outside.direct[each.number].receive(said)
    table.ask(table.core.leave_direct("the test"))

    assert client.parameters.effective == {"client_encoding": "LATIN1"}
    assert other.parameters.effective == {}
    assert not [line for line in table.talk(client, "Q select 1") if line.startswith("S ")]
