"""The short way of a plain read: when it is taken, and that nobody can tell."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import short
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.messages import Message
from pytest_chatdify_db.sandbox.session import SharedSession, Work

from .table import ScriptedServer, Table

WRONG = wire.error("42601", "syntax error")
READ = "Q select a from t"
BOUND = ("B - s", "E -", "S")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether it was taken, for each unit that came."""
    found: list[bool] = []
    serve = short.serve

    def noted(session: SharedSession, client: Client, unit: list[Message]) -> Work:
        found.append((yield from serve(session, client, unit)))
        return found[-1]

    monkeypatch.setattr(short, "serve", noted)
    return found


def never(session: SharedSession, client: Client, unit: list[Message]) -> Work:
    """Have every unit go the long way."""
    yield from ()
    return False


def begun(table: Table) -> Client:
    """Return a client in a transaction in which it has read, with a prepared statement."""
    client = table.join()
    table.talk(client, "P s select b from t", "S")
    table.talk(client, "Q begin")
    table.talk(client, "Q select c from t")
    return client


@pytest.mark.parametrize("lines", [(READ,), BOUND])
def test_a_read_takes_it(table: Table, taken: list[bool], lines: tuple[str, ...]) -> None:
    """Any number of times, once the transaction has a savepoint to return to; also after its own write."""
    client = begun(table)
    taken.clear()
    for _ in range(2):
        assert table.talk(client, *lines)[-2:] == ["C SELECT", "Z T"]
    assert taken == [True, True]

    table.talk(client, "Q set x.y = 1")
    table.talk(client, *lines)
    assert taken[-1]


@pytest.mark.parametrize(
    ("before", "lines"),
    [
        ("Q commit", [READ]),
        ("Q select wrong", [READ]),
        ("Q savepoint a", [READ]),
        ("Q commit; begin read only", [READ]),
        ("Q commit; begin isolation level serializable, read only", [READ]),
        ("Q set x.y = 1; rollback; begin", [READ]),
        ("Q set statement_timeout = 5", [READ]),
        ("Q set role clerk", [READ]),
        ("Q declare c cursor for select 1", [READ]),
        ("Q create temp table x (id int)", [READ]),
        ("Q create table x (id int)", [READ]),
        ("Q insert into t values (1)", [READ]),
        ("P - ", [READ]),
        (READ, ["Q select a from t; select b from t"]),
        (READ, ["Q select a from t;"]),
        (READ, ["Q "]),
        (READ, ["Q update t set a = 1"]),
        (READ, ["Q show x"]),
        (READ, ["Q select lo_put(1, 0, 'x')"]),
        (READ, ["raw Q 73686f77200000"]),
        (READ, ["D s s", "S"]),
        (READ, ["P - select a from t", "B - -", "E -", "S"]),
        (READ, ["B p s", "E p", "S"]),
        (READ, ["B - unknown", "E -", "S"]),
        (READ, ["B - s", "E - 1", "S"]),
        (READ, ["B - s", "D p -", "E -", "S"]),
        (READ, ["B - s", "E -", "H"]),
        (READ, ["raw B 00", "E -", "S"]),
    ],
)
def test_what_does_not_take_it(
    table: Table, server: ScriptedServer, taken: list[bool], before: str, lines: list[str]
) -> None:
    """Whatever the long way does more for."""
    server.on("select wrong", WRONG)
    client = begun(table)
    table.talk(client, before)
    taken.clear()

    table.talk(client, *lines)
    assert not any(taken)


def test_statements_that_are_no_reads(table: Table, taken: list[bool]) -> None:
    """One that writes, one that SQL has prepared, so that it could be anything."""
    client = begun(table)
    table.talk(client, "P w insert into t values (1)", "S")
    table.talk(client, "Q prepare q as select b from t")
    table.talk(client, READ)
    taken.clear()
    for name in ("w", "q"):
        table.talk(client, f"B - {name}", "E -", "S")
    assert taken == [False, False]


def test_what_others_do_keeps_it_shut(table: Table, taken: list[bool]) -> None:
    """What another one has not committed might be read; and what it has written needs a savepoint behind it."""
    client, other = begun(table), table.join(application_name="web")
    table.talk(other, "Q begin; insert into t values (1)")
    taken.clear()
    table.talk(client, READ)
    assert taken == [False]

    table.talk(other, "Q commit; insert into t values (2)")
    taken.clear()
    table.talk(client, READ)
    table.talk(client, READ)
    assert taken == [False, True]


@pytest.mark.parametrize("at", ["Q", "B", "E"])
def test_nobody_can_tell(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """A read that fails on either way: the client is told the same, and the server hears the same before and after."""
    said = []
    for way in (short.serve, never):
        monkeypatch.setattr(short, "serve", way)
        server = ScriptedServer()
        table = Table(server)
        client = begun(table)
        table.talk(client, READ)
        table.talk(client, *BOUND)
        server.on("select a" if at == "Q" else "select b", WRONG, at=at)
        told = [table.talk(client, *([READ] if at == "Q" else BOUND))]
        told += [
            table.talk(client, *lines) for lines in (["D p -", "S"], [READ], ["Q rollback"], [READ], ["Q begin"], BOUND)
        ]
        said.append((told, server.heard, [(each.sql, each.has_failed) for each in table.core.journal.read()]))
    assert said[0] == said[1]
