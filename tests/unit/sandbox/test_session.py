"""What belongs to one client on the session that all share: cursors, parameters, channels, tables, and its errors."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from tests.integration.sandbox.scripts import show

from .table import COPY_IN, ScriptedServer, Table, row


def run(table: Table, *said: str) -> list[str]:
    """Have clients send queries, each line one, ``A: select 1``; return what the last one was answered."""
    answers: list[str] = []
    for line in said:
        letter, _, sql = line.partition(": ")
        answers = table.talk(table.core.session.clients[" AB".index(letter)], f"Q {sql}")
    return answers


@pytest.fixture(autouse=True)
def two(table: Table) -> None:
    """Two clients, A and B."""
    table.join()
    table.join()


# Cursors -------------------------------------------------------------------------------------------------------------


def test_cursors_of_one_name(table: Table, server: ScriptedServer) -> None:
    """The second client's has another name on the server, wherever the client says it."""
    run(table, "A: begin", "A: declare c cursor for select 1", "B: begin", "B: declare c cursor for select 1")
    run(table, "B: fetch c", "B: update t set id = 1 where current of c", "A: delete from t where current of c")
    run(table, "B: close c", "B: fetch d")

    said = [text for text in server.heard if "chatdify.2.c" in text]
    assert [text.split(maxsplit=1)[0] for text in said] == ["declare", "fetch", "update", "close"]
    assert "delete from t where current of c" in server.heard


def test_cursors_end_with_the_savepoint_around_them(table: Table) -> None:
    """Those of a released one belong to what is around it; those WITH HOLD outlive the transaction."""
    client = table.core.session.clients[1]
    run(table, "A: begin", "A: declare a cursor for select 1", "A: savepoint s", "A: savepoint u")
    run(table, "A: declare b cursor for select 1", "A: declare h cursor with hold for select 1", "A: release u")
    assert set(client.cursors) == {b"a", b"b", b"h"}
    run(table, "A: rollback to s")
    assert set(client.cursors) == {b"a"}
    run(table, "A: declare h cursor with hold for select 1", "A: commit")
    assert set(client.cursors) == {b"h"}
    run(table, "A: close all")
    assert client.cursors == {}


def test_a_rollback_closes_what_others_have_opened_since(table: Table, server: ScriptedServer) -> None:
    """An empty cursor takes the place, so that CLOSE works; the client hears of it when it reads."""
    run(table, "A: begin", "A: insert into t values (1)", "B: begin", 'B: declare "C c" cursor for select 1')
    run(table, "B: savepoint s", "A: rollback")

    for read in ('fetch "C c"', 'delete from t where current of "C c"'):
        assert run(table, f"B: {read}")[0].startswith("E 40001 this test's connections have got into each other's way")
        run(table, "B: rollback to s")
    assert run(table, 'B: close "C c"') == ["C CLOSE", "Z T"]
    assert any('DECLARE "C c" CURSOR FOR SELECT' in text for text in server.heard)


def test_portals_that_a_rollback_closes(table: Table) -> None:
    """Neither described nor executed."""
    client = table.core.session.clients[2]
    run(table, "A: begin", "A: insert into t values (1)", "B: begin")
    table.talk(client, "P s select 1", "B p s", "S")
    run(table, "A: rollback", "B: savepoint s")

    for line in ("D p p", "E p"):
        assert table.talk(client, line, "S")[0].startswith("E 40001"), line
        run(table, "B: rollback to s")
    assert table.talk(client, "C p p", "S") == ["3", "Z T"]


def test_the_name_of_a_portal_is_taken_until_the_transaction_ends(table: Table, server: ScriptedServer) -> None:
    """In a failed one too."""
    client = table.core.session.clients[1]
    run(table, "A: begin")
    table.talk(client, "P c rollback", "P s select 1", "B p s", "S")
    server.on("select 1/0", wire.error("22012", "division by zero"))
    run(table, "A: select 1/0")

    assert table.talk(client, "B p c", "S") == ['E 42P03 cursor "p" already exists', "Z E"]
    assert table.talk(client, "D p p", "S")[0].startswith("E 25P02")


def test_a_cursor_that_writes(table: Table) -> None:
    """Reading it is a write, which a foreign error must not undo."""
    session = table.core.session
    run(table, "A: begin", "A: declare c cursor for select lo_create(0)")
    before = session.history.clock
    run(table, "A: fetch c")

    assert session.history.clock == before + 1


# Parameters ----------------------------------------------------------------------------------------------------------


def test_a_parameter_is_its_clients(table: Table, server: ScriptedServer) -> None:
    """It is changed when another client is served, and back; RESET forgets it."""
    run(table, "A: set work_mem = '1MB'", "B: select 1")
    assert any('RESET "work_mem"' in text for text in server.heard)
    server.heard.clear()
    run(table, "A: select 1")
    assert any("set_config('work_mem','x',false)" in text for text in server.heard)
    run(table, "A: reset work_mem", "A: set local x.y = 1")
    assert table.core.session.clients[1].parameters.session == {}


def test_a_report_goes_to_who_caused_it(table: Table) -> None:
    """With the end of its unit, and once."""
    assert run(table, "A: set timezone = 'x'") == ["C SET", "S TimeZone=x", "Z I"]
    assert run(table, "A: select 1") == ["C SELECT", "Z I"]
    assert run(table, "B: select 1") == ["C SELECT", "Z I"]


def test_a_role_that_is_gone(table: Table, server: ScriptedServer) -> None:
    """The statement fails with the server's words, and the client has its first role again, in a transaction too."""
    run(table, "A: set role clerk", "B: select 1", "A: begin", "B: select 1")
    for _ in range(2):
        server.on("set_config('role'", wire.error("22023", "role does not exist"))

    assert run(table, "A: select 1") == ["E 22023 role does not exist", "Z E"]
    run(table, "A: rollback")
    assert run(table, "A: select 1") == ["C SELECT", "Z I"]
    assert table.core.session.clients[1].parameters.identity == ()


# What is said at COMMIT ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (["B: notify news, 'x'"], ["A news x"]),
        (["B: begin", "B: notify news", "B: notify news", "B: commit"], ["A news"]),
        (["A: unlisten news", "B: notify news"], []),
        (["A: unlisten *", "B: notify news"], []),
        (["B: select pg_notify('other', 'x')"], []),
        (["B: select pg_notify($9, 'x')"], []),
        (["B: select pg_notify('ne' || 'ws', 'x'), pg_notify(), pg_notify(now()::text, 'x')"], []),
    ],
)
def test_notifications(table: Table, said: list[str], heard: list[str]) -> None:
    """Each once, to who listens, when its sender commits."""
    listener = table.core.session.clients[1]
    run(table, "A: listen news")
    if said[0].startswith("A"):
        run(table, said.pop(0))
    table.heard(listener)
    run(table, *said)

    assert [show(message).strip() for message in table.heard(listener)] == heard


def test_tables_that_end_with_commit(table: Table, server: ScriptedServer) -> None:
    """The server is told, since its own COMMIT never comes; tables that stay are let be."""
    run(table, "A: create temp table a (id int) on commit drop")
    run(table, "A: create temp table b (id int) on commit delete rows", "A: create temp table c (id int)")
    server.heard.clear()
    run(table, "A: begin", "A: select 1", "A: commit", "B: select 1")

    told = [text for text in server.heard if "TRUNCATE" in text]
    assert len(told) == 2
    assert all('"b"' in text and '"c"' not in text for text in told)
    assert set(table.core.session.clients[1].temporary) == {"b", "c"}


def test_tables_are_dropped_by_who_could_make_them(table: Table, server: ScriptedServer) -> None:
    """The role of another client may not be allowed to."""
    run(table, "A: create temp table a (id int)", "A: drop table if exists b", "B: set role clerk")
    server.heard.clear()
    table.core.closed(table.core.session.clients[1])
    table.settle()
    run(table, "B: select 1")

    told = ";".join(server.heard)
    assert told.index('RESET "role"') < told.index("DROP TABLE")


def test_tables_are_dropped_when_no_cursor_reads_them(table: Table, server: ScriptedServer) -> None:
    """Where one is still read, by a cursor WITH HOLD, the server is told again with each request."""
    run(table, "A: begin; create temp table a (id int) on commit drop")
    run(table, "A: declare c cursor with hold for select * from a", "A: commit")
    server.on("DROP TABLE", wire.error("55006", "in use"))
    assert run(table, "A: select 1") == ["C SELECT", "Z I"]
    assert run(table, "A: select 1") == ["C SELECT", "Z I"]
    server.heard.clear()
    run(table, "A: select 1")

    assert not any("DROP TABLE" in text for text in server.heard)


def test_tables_are_dropped_before_a_copy_begins(table: Table, server: ScriptedServer) -> None:
    """What is taken back of the COPY to learn how it begins is the COPY alone."""
    run(table, "A: insert into b values (1)", "B: begin; create temp table a (id int) on commit drop", "B: commit")
    server.heard.clear()
    server.on("copy b", COPY_IN)

    assert run(table, "A: copy b from stdin")[0].startswith("G")
    server.on("copy b", COPY_IN)
    assert table.talk(table.core.session.clients[1], "c") == ["C COPY 1", "Z I"]
    assert ["DROP" in text for text in server.heard if "DROP" in text or "copy" in text] == [True, False, False]


def test_tables_are_dropped_before_the_next_test(table: Table, server: ScriptedServer) -> None:
    """The end of that one must not bring them back."""
    run(table, "A: create temp table a (id int) on commit drop", "A: insert into b values (1)")
    run(table, "A: begin", "A: create temp table c (id int) on commit drop", "A: commit")
    server.heard.clear()
    table.ask(table.core.push("the next test"))

    assert [text for text in server.heard if "DROP" in text] == ['DROP TABLE IF EXISTS pg_temp."c" CASCADE']


def test_discard_of_a_table_that_is_read(table: Table, server: ScriptedServer) -> None:
    """It fails, as in the server, and the table is still its client's."""
    run(table, "A: create temp table a (id int)", "A: begin", "A: declare c cursor for select * from a")
    server.on("DROP TABLE", wire.error("55006", "in use"))

    assert run(table, "A: discard temp") == ["E 55006 in use", "Z E"]
    assert set(table.core.session.clients[1].temporary) == {"a"}
    assert run(table, "A: rollback", "A: discard temp") == ["C DISCARD TEMP", "Z I"]


# Errors --------------------------------------------------------------------------------------------------------------


def test_a_conflict_names_both(table: Table) -> None:
    """Also one that is gone; what reads nothing goes on."""
    run(table, "A: set application_name = 'first'", "A: begin", "A: insert into t values (1)")
    run(table, "B: insert into t values (2)", "A: rollback")
    table.core.closed(table.core.session.clients[1])
    table.settle()

    error = run(table, "B: select * from t")[0]
    assert error.startswith("E 40001")
    assert "connection 1 (closed since) rolled back" in error
    assert run(table, "B: select 1") == ["C SELECT", "Z I"]


@pytest.mark.parametrize("sqlstate", ["25001", "2D000"])
def test_an_error_about_transactions_has_a_hint(table: Table, server: ScriptedServer, sqlstate: str) -> None:
    """The way out, where the server has none to give and the client is in no transaction."""
    for before, hint in (("select 1", True), ("begin", False)):
        server.on("vacuum", wire.error(sqlstate, "cannot"))
        run(table, f"A: {before}")
        assert (
            'H=Mark the test with @pytest.mark.chatdify_db(isolation="database")' in run(table, "A: vacuum")[0]
        ) is hint


def test_a_value_that_was_committed_and_is_not_safe_has_a_hint(table: Table, server: ScriptedServer) -> None:
    """The way out, behind the server's own, but for the transaction that has added it."""
    unsafe = wire.error("55P04", "unsafe use", hint="Commit it.")
    for before, hint in (("select 1", True), ("begin", True), ("alter type color add value 'blue'", False)):
        run(table, f"A: {before}", "A: savepoint a")
        server.on("select 'blue'", unsafe)
        error = run(table, "A: select 'blue'::color")[0]
        assert error.startswith("E 55P04 unsafe use H=Commit it.")
        assert ('Commit it. Mark the test with @pytest.mark.chatdify_db(isolation="database")' in error) is hint
        run(table, "A: rollback to a")


@pytest.mark.parametrize(("sqlstate", "is_warned"), [("42704", True), ("42601", False)])
def test_a_warning_comes_before_the_error(
    table: Table, server: ScriptedServer, sqlstate: str, *, is_warned: bool
) -> None:
    """The server warns before it looks for the constraint, and not at all where it cannot read the statement."""
    server.on("set constraints", wire.error(sqlstate, "wrong"))
    warning = ["N 25P01 SET CONSTRAINTS can only be used in transaction blocks"] if is_warned else []

    assert run(table, "A: set constraints c deferred") == [*warning, f"E {sqlstate} wrong", "Z I"]


def test_a_failure_does_not_undo_prepare(table: Table, server: ScriptedServer) -> None:
    """The statement may be there, and is closed with the others; one that was there before is not taken for another."""
    client = table.core.session.clients[1]
    for text in ("select 1", "select 2"):
        server.on("1/0", wire.error("22012", "division by zero"))
        run(table, f"A: prepare p as {text}; select 1/0")
    assert client.statements[b"p"].rest.startswith(b" select 1")
    run(table, "A: deallocate all")

    assert client.statements == {}
    assert b"chatdify.1.p" in table.core.session.closing.take()


def test_a_wait_that_was_ended_is_a_deadlock(table: Table, server: ScriptedServer) -> None:
    """With the explanation of who ended it; a cancel after that is one again."""
    client = table.core.session.clients[1]
    cancelled = wire.error("57014", "canceling statement")
    client.explanation = "it waits for itself"
    for expected in ("E 40P01", "E 57014"):
        server.on("select pg_sleep", cancelled)
        assert run(table, "A: select pg_sleep(1)")[0].startswith(expected)
    assert client.explanation == ""


@pytest.mark.parametrize(("sent_at", "shown_at"), [(1, 1), (9, 9), (12, 9), (31, 18)])
def test_positions_are_those_in_the_clients_text(
    table: Table, server: ScriptedServer, sent_at: int, shown_at: int
) -> None:
    """Before, in and behind a name that is another one on the server."""
    run(table, "A: prepare p as select 1")
    server.on("execute", wire.message(b"E", b"SERROR\0VERROR\0C42601\0Mwrong\0P%d\0\0" % sent_at))

    assert run(table, "A: execute p (1, 2, 3, 4, 5)")[0] == f"E 42601 wrong P={shown_at}"


def test_the_catalog_cannot_be_read(table: Table, server: ScriptedServer) -> None:
    """What was known stays known."""
    run(table, "A: select 1")
    server.on("pg_constraint", row("function", "writes", ""), wire.command_complete("SELECT 1"))
    run(table, "A: create table a (id int)", "A: select 1")
    server.on("pg_constraint", wire.error("42501", "no"))
    run(table, "A: create table b (id int)", "A: select 1")

    assert "writes" in table.core.session.catalog.functions


def test_a_notification_does_not_outlive_its_test(table: Table) -> None:
    """Though who should have heard it was in a transaction until then."""
    table.ask(table.core.push("the test"))
    listener, other = table.core.session.clients[1], table.core.session.clients[2]
    table.talk(listener, "Q listen news", "Q begin")
    table.talk(other, "Q notify news")
    table.ask(table.core.pop())

    assert table.talk(listener, "Q rollback") == ["C ROLLBACK", "Z I"]


# Names ---------------------------------------------------------------------------------------------------------------


def test_an_identifier_that_is_too_long(table: Table, server: ScriptedServer) -> None:
    """The server gets one that it cuts as well, and so tells the client what it would have told it."""
    long = "n" * 70
    run(table, f"A: prepare {long} as select 1")
    said = server.heard[-1].split('"')[1]
    assert (len(said) > 63, said.startswith("chatdify.1."), said.endswith(f".{long}")) == (True, True, True)
    cut = wire.notice("42622", f'identifier "{said}" will be truncated to "{said[:63]}"')
    server.on("execute", cut, wire.command_complete("SELECT 1"))

    assert run(table, f"A: execute {long}")[0] == f'N 42622 identifier "{long}" will be truncated to "{long[:63]}"'
    run(table, "A: begin", f"A: declare {long} cursor for select 1", "B: begin")
    run(table, f"B: declare {long} cursor for select 1")
    assert server.heard[-1].startswith('declare "chatdify.2.')
    assert set(table.core.session.clients[2].cursors) == {b"n" * 63}


def test_a_savepoint_whose_name_is_too_long(table: Table, server: ScriptedServer) -> None:
    """The server says so when it parses the text, each time."""
    long = "n" * 70
    cut = wire.notice("42622", f'identifier "{long}" will be truncated')
    table.talk(table.core.session.clients[1], "Q begin")
    for text in (f"savepoint {long}", f"rollback to {long[:65]}", f"release {long[:63]}"):
        server.on(text, cut, at="P")
        is_cut = text[-64:] == "n" * 64
        answers = run(table, f"A: {text}")
        assert [answer[:7] for answer in answers[:-2]] == (["N 42622"] if is_cut or "to" in text else [])
        assert answers[-1] == "Z T"
