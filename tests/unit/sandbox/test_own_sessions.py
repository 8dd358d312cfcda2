"""Clients in a database of the test's own: they move to sessions of their own, and back."""

from __future__ import annotations

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.client import Stage
from tests.integration.sandbox.scripts import Step

from .table import PASSWORD, ScriptedServer, Table


def test_a_frame_is_not_clean_beside_an_own_session(table: Table) -> None:
    """What its client does in its own session the core does not know."""
    client = table.join()
    table.ask(table.core.enter_direct())
    table.talk(client, "Q select 1")
    assert not table.core.is_clean

    table.ask(table.core.leave_direct("the test"))
    assert table.core.is_clean


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
    table.told(client)
    table.ask(table.core.leave_direct("the test"))

    assert table.told(client)[0].startswith("E 57P01 terminating connection because the test that it worked for")
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

    assert table.told(client)[0].endswith("D=too many connections")
    assert client.stage is Stage.ENDED


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
