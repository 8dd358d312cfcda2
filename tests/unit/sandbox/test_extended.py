"""The extended protocol: what a client is told of each message, and what the server is asked behind its back."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.quoting import quote_name
from tests.integration.sandbox.scripts import show

from .table import COPY_IN, ScriptedServer, Table

WRONG = wire.error("42601", "syntax error")
_GONE = 'E 34000 portal "" does not exist'


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        (["P - select 1", "B - -", "D p -", "E -", "S"], ["1", "2", "n", "C SELECT", "Z I"]),
        (["P s select 1", "D s s", "C s s", "C s s", "S"], ["1", "n", "3", "3", "Z I"]),
        (["P p select 1", "B q p", "C p q", "C p q", "S"], ["1", "2", "3", "3", "Z I"]),
        (["P - -- nothing", "B - -", "E -", "S"], ["1", "2", "I", "Z I"]),
        (["P - begin", "B - -", "E -", "S"], ["1", "2", "C BEGIN", "Z T"]),
        (["B - -", "S"], ["E 26000 unnamed prepared statement does not exist", "Z I"]),
        (["D s -", "S"], ["E 26000 unnamed prepared statement does not exist", "Z I"]),
        (["D p -", "S"], [_GONE, "Z I"]),
        (["E -", "S"], [_GONE, "Z I"]),
        (["raw D 5800", "S"], ["n", "Z I"]),
        (["raw B 00", "S"], ["E 08P01 invalid string in message", "Z I"]),
        (["P - begin", "B p -", "E p", "E p", "S"], ["1", "2", "C BEGIN", 'E 55000 portal "p" cannot be run', "Z E"]),
        (
            ["P - begin", "B - -", "E -", "P - select 1", "B - -", "E -", "S"],
            ["1", "2", "C BEGIN", "1", "2", "C SELECT", "Z T"],
        ),
        (["P s select 1", "H"], ["1"]),
        (["P s select 1", "H", "B - s", "E -", "S"], ["1", "2", "C SELECT", "Z I"]),
        (["P - select 1", "B - -", "E -", "Q select 2"], ["1", "2", "C SELECT", "C SELECT", "Z T"]),
        (["P - set x.y = 1", "B - -", "E -", "S"], ["1", "2", "C SET", "Z I"]),
        (["P - select 1", "B - -", "H", "E -", "S"], ["1", "2", "C SELECT", "Z I"]),
        (["P - select 1", "B - -", "D p -", "E - 1", "S"], ["1", "2", "n", "C SELECT", "Z I"]),
        (["P - reset all", "B - -", "E -", "S"], ["1", "2", "C RESET", "Z I"]),
        (
            ["P - lock t", "B - -", "E -", "S"],
            ["1", "2", "E 25P01 LOCK TABLE can only be used in transaction blocks", "Z I"],
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[-1][0] in "SHQ" else None,
)
def test_answers(table: Table, lines: list[str], answers: list[str]) -> None:
    """One answer for each message, as the server gives them, and nothing of what the sandbox adds."""
    assert table.talk(table.join(), *lines) == answers


def test_an_error_skips_to_sync(table: Table, server: ScriptedServer) -> None:
    """Wherever it comes from, the rest of the pipeline is not done, over any number of units."""
    client = table.join()
    server.on("select wrong", WRONG, at="P")

    assert table.talk(client, "P - select wrong", "H") == ["E 42601 syntax error"]
    assert table.talk(client, "P - select 1", "H") == []
    assert table.talk(client, "Q select 1") == []
    assert table.talk(client, "S") == ["Z I"]


def test_a_statement_that_failed_to_be_prepared_is_not_there(table: Table, server: ScriptedServer) -> None:
    """Nor one behind it; what was there under its name before is."""
    client = table.join()
    table.talk(client, "P s select 1", "S")
    server.on("select wrong", WRONG, at="P")
    table.talk(client, "P t select wrong", "P s select 2", "S")

    assert set(client.statements) == {b"s"}
    assert client.statements[b"s"].rest.startswith(b"select 1")


def test_a_statement_is_closed_before_an_error_and_not_behind_it(table: Table, server: ScriptedServer) -> None:
    """One that was closed before is prepared anew under its name; one that was not, because of it, is there still."""
    client = table.join()
    table.talk(client, "P s select 1", "P t select 2", "S")
    server.on("select wrong", WRONG, at="P")
    table.talk(client, "C s s", "P - select wrong", "C s t", "S")

    assert set(client.statements) == {b"t"}
    assert table.talk(client, "P s select 3", "D s t", "S") == ["1", "n", "Z I"]


def test_an_unnamed_statement_that_fails_is_gone_with_the_one_before(table: Table, server: ScriptedServer) -> None:
    """Also where others of the pipeline have been answered before it."""
    client = table.join()
    table.talk(client, "P s select 1", "S")
    server.on("select wrong", WRONG, at="P")
    table.talk(client, "P - select 2", "B - s", "E -", "P - select wrong", "S")

    assert set(client.statements) == {b"s"}


def test_a_warning_comes_before_the_error_of_its_statement(table: Table, server: ScriptedServer) -> None:
    """Whatever else is prepared behind it."""
    server.on("set local work_mem = 1", wire.error("22023", "too small"))
    lines = ("P - set local work_mem = 1", "B - -", "E -", "P s select 1", "B - s", "E -", "S")

    answers = table.talk(table.join(), *lines)
    assert [answer[:7] for answer in answers] == ["1", "2", "N 25P01", "E 22023", "Z I"]


def test_a_query_behind_an_execute_is_not_alone(table: Table) -> None:
    """What needs a transaction has that of the pipeline."""
    answers = table.talk(table.join(), "P - select 1", "B - -", "E -", "Q declare c cursor for select 1")

    assert answers == ["1", "2", "C SELECT", "C DECLARE", "Z T"]


def test_no_writing_where_a_held_cursor_stands(table: Table) -> None:
    """Its rows are of a transaction that has ended."""
    client = table.join()
    table.talk(client, "Q begin", "Q declare c cursor with hold for select 1", "Q commit", "Q fetch c")

    error = 'E 24000 cursor "c" is held from a previous transaction'
    assert table.talk(client, "Q delete from t where current of c") == [error, "Z I"]


@pytest.mark.parametrize("at", ["P", "B", "E"])
def test_an_error_is_where_its_own_text_has_it(table: Table, server: ScriptedServer, at: str) -> None:
    """The server has a longer name in front of it; which of the texts of a pipeline it is about is known."""
    client = table.join()
    sent = f"prepare {quote_name((client.prefix + b'p').decode())} as select nothing"
    server.on(sent, wire.message(b"E", b"C42703\0Mno such column\0P%d\0\0" % (sent.index("nothing") + 1)), at=at)
    lines = ("P - select 1", "B - -", "E -", "P - prepare p as select nothing", "B - -", "E -", "P s select 2", "S")

    assert table.talk(client, *lines)[-2].startswith("E 42703 no such column P=21")


def test_an_error_of_a_text_in_a_failed_transaction(table: Table, server: ScriptedServer) -> None:
    """It is where the client's text has it, too."""
    client = table.join()
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q begin", "Q select 1/0")
    sent = f"prepare {quote_name((client.prefix + b'p').decode())} as fetch c"
    server.on(sent, wire.message(b"E", b"C42601\0Msyntax error\0P%d\0\0" % (sent.index("fetch") + 1)), at="P")

    assert table.talk(client, "P - prepare p as fetch c", "S")[0] == "E 42601 syntax error P=14"


def test_a_declared_cursor_in_a_failed_transaction(table: Table, server: ScriptedServer) -> None:
    """It is there, and can be neither described nor executed."""
    client = table.join()
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q begin", "Q declare c cursor for select 1", "Q select 1/0")

    for line in ("D p c", "E c"):
        assert table.talk(client, line, "S")[0].startswith("E 25P02"), line


def test_parameters_of_prepare_in_a_failed_transaction(table: Table, server: ScriptedServer) -> None:
    """They are those of the statement that it names, not its own."""
    client = table.join()
    table.talk(client, "P s prepare p (int) as select $1", "S")
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q begin", "Q select 1/0")

    assert table.talk(client, "B - s", "S")[0].startswith("E 25P02")


def test_portals_of_a_failed_pipeline(table: Table, server: ScriptedServer) -> None:
    """Outside a transaction they are gone; in one, the name of a bound one stays taken until it ends."""
    client = table.join()
    table.talk(client, "P s select 1", "P w select wrong", "S")
    for _ in range(2):
        server.on("select wrong", WRONG, at="E")
    table.talk(client, "B p s", "B q w", "E q", "S")
    assert client.portals == {}

    table.talk(client, "Q begin")
    table.talk(client, "B p s", "B q w", "E q", "S")
    assert set(client.portals) == {b"p", b"q"}
    assert table.talk(client, "B p s", "S")[0].startswith("E 25P02")


def test_in_a_failed_transaction_only_its_end_is_prepared(table: Table, server: ScriptedServer) -> None:
    """Statements with rows are not described either; those without are."""
    client = table.join()
    table.talk(client, "P s select 1", "P u update t set id = 1", "S")
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q begin")
    table.talk(client, "Q select 1/0")

    for line in ("P - select 1", "D s s", "B - s"):
        assert table.talk(client, line, "S")[0].startswith("E 25P02"), line
    assert table.talk(client, "D s u", "S") == ["n", "Z E"]
    assert table.talk(client, "P - rollback", "B - -", "E -", "S") == ["1", "2", "C ROLLBACK", "Z I"]


def test_a_statement_of_another_session_is_prepared_again(table: Table, server: ScriptedServer) -> None:
    """After the server's session was replaced, a client's statement still works, and it hears of nothing."""
    client = table.join()
    table.talk(client, "P s select 1", "S")
    table.core.session.statements._there.clear()

    assert table.talk(client, "B - s", "E -", "S") == ["2", "C SELECT", "Z I"]
    assert table.talk(client, "D s s", "S") == ["n", "Z I"]


def test_the_unnamed_statement_is_the_clients_own(table: Table) -> None:
    """Another client's does not replace it, although the server has only one."""
    first, second = table.join(), table.join()
    table.talk(first, "P - select 1", "S")
    table.talk(second, "P - insert into t values (1)", "S")

    assert table.talk(first, "B - -", "E -", "S") == ["2", "C SELECT", "Z I"]


def test_a_portal_that_lives_on_has_a_name_of_its_own(table: Table, server: ScriptedServer) -> None:
    """The unnamed portal too, if it is not executed to its end; the next one closes it, and so does a query."""
    client = table.join()
    table.talk(client, "Q begin")
    server.on("select 1", wire.PORTAL_SUSPENDED, at="E")
    assert table.talk(client, "P - select 1", "B - -", "E - 1", "S") == ["1", "2", "s", "Z T"]
    assert set(client.cursors) == {b""}
    assert table.talk(client, "B - -", "E -", "S") == ["2", "C SELECT", "Z T"]
    table.talk(client, "B - -", "S")
    table.talk(client, "Q select 2")
    assert client.cursors == {}


def test_copy_by_execute(table: Table, server: ScriptedServer) -> None:
    """The data follows; Sync and Flush are ignored meanwhile, and an error skips to the Sync behind it."""
    client = table.join()
    server.on("copy t", COPY_IN)
    assert table.talk(client, "P - copy t from stdin", "B - -", "E -", "S")[:2] == ["1", "2"]
    server.on("copy t", COPY_IN)
    assert table.talk(client, "H", "S") == []
    assert table.talk(client, "d 1\\n", "c", "S") == ["C COPY 1", "Z I"]

    server.on("copy t", COPY_IN)
    table.talk(client, "P - copy t from stdin", "B - -", "E -", "S")
    server.on("copy t", COPY_IN)
    assert table.talk(client, "f no") == ["E 57014 COPY from stdin failed: no"]
    assert table.talk(client, "S") == ["Z I"]


def test_a_foreign_temporary_table_is_not_prepared(table: Table) -> None:
    """Nor is one of its name made."""
    owner, other = table.join(), table.join()
    table.talk(owner, "Q create temp table x (id int)")

    for sql, sqlstate in (("select * from x", "42P01"), ("create temp table x (id int)", "42P07")):
        assert table.talk(other, f"P - {sql}", "S")[0].startswith(f"E {sqlstate} temporary table")
        assert table.talk(other, f"Q {sql}")[0].startswith(f"E {sqlstate} temporary table")
    assert table.talk(owner, "P - select * from x", "S") == ["1", "Z I"]


def test_what_is_executed_may_say_something(table: Table) -> None:
    """A bound call of pg_notify reaches a listener, and one of set_config belongs to its client."""
    client, listener = table.join(), table.join()
    table.talk(listener, "Q listen news")
    table.heard(listener)
    said = "select pg_notify($1, $2), set_config('work_mem', '1MB', false)"
    table.talk(client, f"P - {said}", "B - - news hello", "E -", "S")

    assert client.parameters.session == {"work_mem": "x"}
    assert list(map(show, table.heard(listener))) == ["A news hello"]


def test_a_control_statement_that_is_wrong(table: Table, server: ScriptedServer) -> None:
    """The server is asked, and what it says is said; nothing is prepared."""
    fields = b"SERROR\0VERROR\0C42601\0Msyntax error\0P7\0\0"
    server.on("begin isolation", wire.message(b"E", fields), at="P")
    client = table.join()

    answers = table.talk(client, "P - begin isolation read", "B - -", "E -", "S")
    assert answers == ["E 42601 syntax error P=7", "Z I"]
    assert client.statements == {}


LONG = "n" * 63


def test_names_that_are_the_same_to_the_server(table: Table, server: ScriptedServer) -> None:
    """It takes 63 bytes of them, and nothing of the rest."""
    client = table.join()
    assert table.talk(client, f"P {LONG}a -- nothing", f"B - {LONG}b", "E -", f"D s {LONG}b", "S")[2] == "I"
    assert table.talk(client, "Q begin", f"P {LONG[1:]}bc select 1", f"B {LONG}d {LONG[1:]}bd", "S")[2:4] == ["1", "2"]
    assert set(client.portals) == {LONG.encode()}
    assert table.talk(client, f"E {LONG}e", f"C p {LONG}f", f"C s {LONG[1:]}be", "S") == ["C SELECT", "3", "3", "Z T"]
    assert set(client.statements) == {LONG.encode()}


def test_close_all_by_a_portal(table: Table) -> None:
    """It leaves the portal that runs it."""
    client = table.join()
    table.talk(client, "Q begin", "P s close all", "P - select 1", "B p s", "B q -", "H")
    assert table.talk(client, "E p", "D p p", "E p", "S") == [
        "C CLOSE CURSOR ALL",
        "n",
        'E 55000 portal "p" cannot be run',
        "Z E",
    ]
    table.talk(client, "Q rollback", "Q begin")
    table.talk(client, "P - close all", "B - -", "E -", "S")
    assert client.cursors == {}


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("B - nothing", 'E 26000 prepared statement "nothing" does not exist'),
        ("B - s 1", 'E 08P01 bind message supplies 1 parameters, but prepared statement "s" requires 2'),
        ("B p r 1", 'E 08P01 bind message supplies 1 parameters, but prepared statement "r" requires 0'),
        ("B - s 1 2", "E 25P02"),
        ("B - v 1", "E 25P02"),
        ("B p r", 'E 42P03 cursor "p" already exists'),
        ("raw B 0072000002000000000000000000", "E 08P01 bind message has 2 parameter formats but 0 parameters"),
        ("raw B 00720000", "E 08P01 insufficient data left in message"),
        ("D p p", "n"),
        ("P - select 1; select 2", "E 42601 cannot insert multiple commands into a prepared statement"),
        ("P - select 1", "E 25P02"),
        ("E p", "E 25P02"),
    ],
)
def test_what_a_failed_transaction_is_told_first(table: Table, server: ScriptedServer, line: str, answer: str) -> None:
    """What does not fit is wrong in any transaction; then that this one has failed, then the rest."""
    client = table.join()
    table.talk(client, "P s select $2, '$3'", "P r rollback", "P v:23 rollback", "P c close all", "S")
    table.talk(client, "Q begin", "B p c", "E p", "S")
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q select 1/0")

    said, status = table.talk(client, line, "S")
    assert (said.startswith(answer), status) == (True, "Z E")


def test_a_wrong_text_in_a_failed_transaction(table: Table, server: ScriptedServer) -> None:
    """The server parses it before it looks whether it may run."""
    client = table.join()
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q begin", "Q select 1/0")
    server.on("selekt", wire.message(b"E", b"SERROR\0VERROR\0C42601\0Msyntax error\0P1\0\0"), at="P")

    assert table.talk(client, "P - selekt", "S") == ["E 42601 syntax error P=1", "Z E"]


def test_an_error_in_front_of_what_has_failed(table: Table, server: ScriptedServer) -> None:
    """It is the only one that is heard of."""
    client = table.join()
    table.talk(client, "P r rollback", "S")
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q begin", "Q select 1/0")
    server.on("rollback", wire.error("08P01", "wrong"), at="B")

    assert table.talk(client, "B - r", "P - select 1", "S") == ["E 08P01 wrong", "Z E"]


def test_a_portal_that_is_bound_twice(table: Table, server: ScriptedServer) -> None:
    """The one that was there before stays, be it of this pipeline or of an earlier one."""
    client = table.join()
    table.talk(client, "Q begin", "P s select 1", "B p s", "S")
    before = client.portals[b"p"]
    exists = wire.error("42P03", "cursor exists")
    for answer in (exists, wire.BIND_COMPLETE, exists):
        server.on("select 1", answer, at="B")

    assert table.talk(client, "B p s", "S") == ["E 42P03 cursor exists", "Z E"]
    assert client.portals == {b"p": before}
    table.talk(client, "Q rollback", "Q begin")
    assert table.talk(client, "B q s", "B q s", "S") == ["2", "E 42P03 cursor exists", "Z E"]
    assert (set(client.portals), set(client.cursors)) == ({b"q"}, {b"q"})


def test_a_portal_that_has_run_is_not_fetched_from(table: Table) -> None:
    """The server would run it, as it does not know that it has been run."""
    client = table.join()
    table.talk(client, "P - begin", "B p -", "E p", "S")

    assert table.talk(client, "Q fetch 1 from p") == ['E 55000 portal "p" cannot be run', "Z E"]


def test_a_parameter_that_is_set_twice_in_a_pipeline(table: Table, server: ScriptedServer) -> None:
    """Once for the session and once for the transaction: each value is read back before the next one is set."""
    client = table.join()
    client_set = ["P - set a = 1", "B - -", "E -"]
    local_set = ["P - set local a = 2", "B - -", "E -"]
    answer = ["1", "2", "C SET"]

    assert table.talk(client, *client_set, "B - nothing", "S")[:3] == answer
    assert table.talk(client, *client_set, *local_set, "S") == [*answer, *answer, "Z I"]
    said = [text for text in server.heard if text.startswith(("set", "SELECT pg_catalog.current_setting"))]
    assert [text.split()[0] for text in said[-4:]] == ["set", "SELECT", "set", "SELECT"]

    server.on("set a", WRONG, at="E")
    assert table.talk(client, *client_set, *local_set, "S") == ["1", "2", "E 42601 syntax error", "Z I"]


def test_a_cursor_that_is_read_in_front_of_a_statement(table: Table) -> None:
    """The statement is not alone then: what needs a transaction has one."""
    client = table.join()
    table.talk(client, "Q declare c cursor with hold for select 1")
    declare = ["P - declare d cursor for select 1", "B - -", "E -", "S"]

    assert table.talk(client, *declare)[-2].startswith("E 25P01 DECLARE CURSOR")
    assert table.talk(client, "E c 1", *declare)[-2:] == ["C DECLARE", "Z I"]
