"""Deferred constraints of several clients: what the server is asked at each COMMIT, and whose error it is."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.backend import Reply

from .table import COPY_IN, ScriptedServer, Table, row

#: The catalog's rows: a deferred key between two tables, one between two others, one that is immediate at first.
CATALOG = b"".join(
    [
        row("deferred", "public.boys_parent", "boys\tmothers"),
        row("deferred", "public.girls_parent", "girls\tmothers"),
        row("deferrable", "public.slot", "boys"),
        wire.command_complete("SELECT 3"),
    ]
)


#: What a client is told of a row in the wrong.
BOYS = "E 23503 violates s=public t=boys n=boys_parent"


def violation(constraint: str, table: str) -> bytes:
    """Return the server's error about a row of *table*."""
    fields = {"S": "ERROR", "V": "ERROR", "C": "23503", "M": "violates", "s": "public", "t": table, "n": constraint}
    return wire.message(b"E", b"".join(code.encode() + text.encode() + b"\0" for code, text in fields.items()) + b"\0")


@pytest.fixture
def table(server: ScriptedServer) -> Table:
    """A sandbox in a database with those constraints."""
    server.on("pg_constraint", CATALOG)
    table = Table(server)
    table.ask(table.core.push("the test"))
    return table


def checks(server: ScriptedServer) -> list[str]:
    """Return the SET CONSTRAINTS that the server was asked for, those of clients too, and forget what it has heard."""
    asked = [text for text in server.heard if "SET CONSTRAINTS" in text.upper()]
    server.heard.clear()
    return asked


ALL = "SET CONSTRAINTS ALL IMMEDIATE;SET CONSTRAINTS public.boys_parent,public.girls_parent DEFERRED"


def test_a_commit_checks_what_its_client_has_written(table: Table, server: ScriptedServer) -> None:
    """All constraints, which then wait again by name; a transaction without writes is not checked."""
    client = table.join()
    table.talk(client, "Q begin", "Q select * from boys", "Q commit")
    checks(server)
    table.talk(client, "Q begin; select 1")
    table.talk(client, "Q commit")
    assert checks(server) == []

    table.talk(client, "Q begin")
    table.talk(client, "Q insert into boys values (1)")
    assert table.talk(client, "Q commit") == ["C COMMIT", "Z I"]
    assert checks(server) == [ALL]


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        ("Q insert into boys values (1)", [BOYS, "Z I"]),
        (
            "Q select 1; insert into boys values (1)",
            ["C SELECT", BOYS, "Z I"],
        ),
        (
            "Q begin; insert into boys values (1); commit",
            ["C BEGIN", "C INSERT", BOYS, "Z I"],
        ),
        (
            "Q insert into boys values (1); reset all",
            ["C INSERT", BOYS, "Z I"],
        ),
    ],
)
def test_a_failed_check_is_the_error_of_the_commit(
    table: Table, server: ScriptedServer, line: str, answers: list[str]
) -> None:
    """In a query it takes the place of the last tag, as in the server, and everything is undone."""
    client = table.join()
    table.talk(client, "Q select 1")
    server.on("SET CONSTRAINTS ALL", violation("boys_parent", "boys"))

    assert table.talk(client, line) == answers
    assert client.transaction is None


def test_a_failed_check_at_sync_follows_the_tag(table: Table, server: ScriptedServer) -> None:
    """So does the server's."""
    client = table.join()
    table.talk(client, "Q select 1")
    server.on("SET CONSTRAINTS ALL", violation("boys_parent", "boys"))

    answers = table.talk(client, "P - insert into boys values (1)", "B - -", "E -", "S")
    assert answers[2:] == ["C INSERT", BOYS, "Z I"]


def test_copy_is_checked_too(table: Table, server: ScriptedServer) -> None:
    """Its tag waits for the check."""
    client = table.join()
    table.talk(client, "Q select 1")
    server.on("copy boys", COPY_IN)
    table.talk(client, "Q copy boys from stdin")
    server.on("copy boys", COPY_IN)
    server.on("SET CONSTRAINTS ALL", violation("boys_parent", "boys"))

    assert table.talk(client, "c") == [BOYS, "Z I"]


def test_while_another_writes_only_ones_own_tables_are_checked(table: Table, server: ScriptedServer) -> None:
    """An error about a table that both have written to is left for the other's COMMIT; the rest is checked."""
    first, second = table.join(), table.join()
    for client, name in ((first, "boys"), (second, "boys"), (second, "girls")):
        if client.transaction is None:
            table.talk(client, "Q begin")
        table.talk(client, f"Q insert into {name} values (1)")
    checks(server)
    server.on("SET CONSTRAINTS public.boys_parent", violation("boys_parent", "boys"))

    assert table.talk(second, "Q commit") == ["C COMMIT", "Z I"]
    assert [text.partition(";")[0] for text in checks(server)] == [
        "SET CONSTRAINTS public.boys_parent,public.girls_parent,public.slot IMMEDIATE",
        "SET CONSTRAINTS public.girls_parent,public.slot IMMEDIATE",
    ]


@pytest.mark.parametrize(
    ("constraint", "name", "is_blamed"),
    [("girls_parent", "girls", True), ("boys_parent", "boys", False), ("unknown", "boys", False)],
)
def test_whose_error_it_is(
    table: Table, server: ScriptedServer, constraint: str, name: str, *, is_blamed: bool
) -> None:
    """The client's own if it is about a table that only this one has written to."""
    first, second = table.join(), table.join()
    table.talk(first, "Q begin")
    table.talk(first, "Q insert into boys values (1)")
    table.talk(second, "Q begin")
    table.talk(second, "Q insert into girls values (1)")
    server.on("SET CONSTRAINTS public.girls_parent IMMEDIATE", violation(constraint, name))

    answers = table.talk(second, "Q commit")
    assert (answers[0][0] == "E") is is_blamed
    assert answers[-1] == "Z I"


def test_a_read_only_transaction_is_checked_as_one(table: Table, server: ScriptedServer) -> None:
    """It may not lock rows either, so the server's answer is asked for in that mode."""
    client = table.join()
    table.talk(client, "Q begin")
    table.talk(client, "Q insert into boys values (1)")
    table.talk(client, "Q set transaction read only")
    checks(server)
    table.talk(client, "Q commit")

    assert checks(server) == [f"SAVEPOINT read_only;SET TRANSACTION READ ONLY;{ALL};RELEASE read_only"]


def test_set_constraints_holds_while_its_client_is_served(table: Table, server: ScriptedServer) -> None:
    """Another client's statement is run with constraints as they were declared, and its own as it has asked."""
    first, second = table.join(), table.join()
    table.talk(first, "Q begin")
    table.talk(first, "Q set constraints all immediate")
    checks(server)
    declared = "SET CONSTRAINTS public.slot IMMEDIATE;SET CONSTRAINTS public.boys_parent,public.girls_parent DEFERRED"
    table.talk(second, "Q select 1")
    assert checks(server) == [declared]
    table.talk(second, "Q set work_mem = '1MB'")
    table.talk(first, "Q select 1")
    assert checks(server) == [f'RESET "work_mem";{declared};set constraints all immediate']

    table.talk(first, "Q rollback")
    server.on(declared, violation("slot", "boys"))
    table.talk(second, "Q select 1")
    assert len(checks(server)) == 2
    table.talk(second, "Q select 1")
    assert checks(server) == []


def test_a_new_constraint_waits_though_all_were_made_immediate(table: Table, server: ScriptedServer) -> None:
    """ALL IMMEDIATE of a check holds for constraints to come, so a new one is deferred by name."""
    client = table.join()
    table.talk(client, "Q select 1")
    server.on("pg_constraint", CATALOG + b"")
    server.on("pg_constraint", row("deferred", "public.new", "boys") + CATALOG)
    table.talk(client, "Q create table a (id int)")
    table.talk(client, "Q select 1")
    table.talk(client, "Q create table b (id int)")
    table.talk(client, "Q select 1")
    checks(server)
    table.talk(client, "Q select 1")

    assert "public.new" in table.core.session.catalog.deferred


def test_nothing_to_check_while_another_writes(table: Table, server: ScriptedServer) -> None:
    """A client that has written to other tables commits, whatever waits for the other one."""
    first, second = table.join(), table.join()
    for client, name in ((first, "boys"), (second, "plain")):
        table.talk(client, "Q begin")
        table.talk(client, f"Q insert into {name} values (1)")
    checks(server)

    assert table.talk(second, "Q commit") == ["C COMMIT", "Z I"]
    assert checks(server) == []


def test_what_a_trigger_does_at_commit(server: ScriptedServer) -> None:
    """Its notices reach the client in front of the tag, and what it writes outlives an error of the next statement."""
    rows = [row("deferrable", "public.noted", "boys"), row("trigger", "noted", "")]
    server.on("pg_constraint", *rows, wire.command_complete("SELECT 2"))
    table = Table(server)
    table.ask(table.core.push("the test"))
    client = table.join()
    server.on("ALL IMMEDIATE", wire.notice("00000", "noted"), wire.command_complete("SET CONSTRAINTS"))
    assert table.talk(client, "Q insert into boys values (1)") == ["N 00000 noted", "C INSERT", "Z I"]
    server.heard.clear()
    table.talk(client, "Q begin", "Q set constraints all immediate", "Q savepoint a", "Q select 1")
    assert "SAVEPOINT" in "".join(server.heard[server.heard.index("set constraints all immediate") :])


def test_a_notice_that_nobody_asked_for_is_kept() -> None:
    """With the answer to a question of the sandbox's own; other messages are not."""
    reply = Reply()
    reply.special(ord("N"), b"notice")
    reply.special(ord("G"), b"copy")

    assert reply.notices == b"notice"


def test_a_constraint_that_a_function_has_dropped(table: Table, server: ScriptedServer) -> None:
    """It is not looked for again once the catalog has been read anew."""
    client = table.join()
    table.talk(client, "Q begin", "Q insert into boys values (1)")
    checks(server)
    server.on("SET CONSTRAINTS ALL", wire.error("42704", 'constraint "girls_parent" does not exist'))

    assert table.talk(client, "Q commit") == ["C COMMIT", "Z I"]
    assert len(checks(server)) == 2


def test_a_failure_after_a_commit_does_not_undo_its_check(table: Table, server: ScriptedServer) -> None:
    """What has been checked would wait again, and its table could not be altered: the savepoint is behind the check."""
    client = table.join()
    table.talk(client, "Q insert into boys values (1)")
    server.heard.clear()
    server.on("select 1/0", wire.error("22012", "division by zero"))
    table.talk(client, "Q select 1/0", "Q select 1")

    before, *rest = server.heard
    _, is_new, savepoint = before.rpartition("SAVEPOINT ")
    assert is_new
    assert rest == ["select 1/0", f"ROLLBACK TO {savepoint}", "select 1"]


def test_what_another_ones_rollback_has_wait_again_is_checked(table: Table, server: ScriptedServer) -> None:
    """As soon as no client has rows of its own that may fail."""
    first, second, third = table.join(), table.join(), table.join()
    table.talk(first, "Q begin", "Q insert into boys values (1)")
    table.talk(second, "Q begin", "Q insert into plain values (1)", "Q rollback")
    table.talk(second, "Q begin", "Q insert into plain values (1)")
    table.talk(first, "Q commit")
    table.talk(second, "Q rollback")
    table.talk(third, "Q begin", "Q insert into girls values (1)")
    assert checks(server)[-1] == ALL
    table.talk(third, "Q rollback", "Q select 1")

    assert checks(server) == []


def test_it_is_not_while_another_has_rows_that_wait(table: Table, server: ScriptedServer) -> None:
    """Its error would be somebody else's."""
    first, second, third = table.join(), table.join(), table.join()
    table.talk(third, "Q begin", "Q insert into girls values (1)")
    table.talk(first, "Q begin", "Q insert into boys values (1)")
    table.talk(second, "Q begin", "Q insert into plain values (1)")
    table.talk(first, "Q commit")
    checks(server)
    table.talk(second, "Q rollback", "Q select 1")
    assert checks(server) == []
    table.talk(third, "Q commit", "Q select 1")

    assert checks(server) == [ALL]
