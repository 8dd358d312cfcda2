"""What drivers say around statements: when it is answered as it comes, and that nobody can tell."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import at_once
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.messages import Message
from pytest_chatdify_db.sandbox.session import SharedSession

from .table import ScriptedServer, Table, row

WRONG = wire.error("42601", "syntax error")
WORDS = ("BEGIN", "BEGIN;", "COMMIT", "COMMIT;", "ROLLBACK", "ROLLBACK;")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether it was, for each unit that came."""
    found: list[bool] = []
    serve = at_once.serve

    def noted(session: SharedSession, client: Client, unit: Sequence[Message]) -> bool:
        found.append(serve(session, client, unit))
        return found[-1]

    monkeypatch.setattr(at_once, "serve", noted)
    return found


def never(_session: SharedSession, _client: Client, _unit: Sequence[Message]) -> bool:
    """Have every unit go the long way."""
    return False


def test_a_transaction_of_a_driver(table: Table, server: ScriptedServer, taken: list[bool]) -> None:
    """The server hears of none of it."""
    client = table.join()
    table.talk(client, "Q insert into t values (1)")
    server.heard.clear()
    taken.clear()

    for begin, end in (("BEGIN", "COMMIT"), ("BEGIN;", "COMMIT;"), ("BEGIN", "ROLLBACK"), ("BEGIN;", "ROLLBACK;")):
        assert table.talk(client, f"Q {begin}") == ["C BEGIN", "Z T"]
        assert table.talk(client, f"Q {end}") == [f"C {end.strip(';')}", "Z I"]
    assert taken == [True] * 8
    assert server.heard == []


def test_the_question_of_a_pool(table: Table, server: ScriptedServer, taken: list[bool]) -> None:
    """It is answered byte by byte as the server would; in a transaction, or in another role, by the server."""
    client = table.join()
    server.heard.clear()

    description, *answers = table.talk(client, "Q SELECT 1")
    assert (description[0], answers) == ("T", ["D 1", "C SELECT 1", "Z I"])
    assert server.heard == []
    for before in ("Q BEGIN", "Q set role clerk; rollback; set role clerk"):
        table.talk(client, before)
        taken.clear()
        assert table.talk(client, "Q SELECT 1")[:-1] == ["C SELECT"]
        assert not any(taken)


def test_what_comes_together(table: Table, taken: list[bool]) -> None:
    """Each is answered in its turn, behind the others."""
    client = table.join()

    assert table.talk(client, "Q BEGIN", "Q select 1", "Q COMMIT", "Q BEGIN") == [
        *("C BEGIN", "Z T", "C SELECT", "Z T", "C COMMIT", "Z I"),
        *("C BEGIN", "Z T"),
    ]
    assert taken == [True, False, True, True]


def deferred() -> bytes:
    """Return the catalog's row about a constraint that waits for the COMMIT."""
    return row("deferred", "public.t_parent", "t") + wire.command_complete("SELECT 1")


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "before",
    [
        [],
        ["Q begin"],
        ["Q begin; insert into t values (1)"],
        ["Q begin; select wrong"],
        ["Q insert into t values (1)"],
        ["Q set default_transaction_isolation = 'serializable'"],
        ["Q set default_transaction_read_only = on"],
        ["Q set role clerk"],
        ["Q begin; set local x.y = 1"],
        ["Q begin; declare c cursor for select 1"],
        ["Q declare c cursor with hold for select 1"],
        ["Q listen news; begin; notify news, 'read'"],
        ["Q create temp table b (id int) on commit delete rows"],
        ["Q create table c (id int)", "Q begin"],
        ["P - select a", "S"],
        ["P - select a", "B - -", "E -", "H"],
        ["P - select wrong", "B - -", "E -", "H"],
        ["Q copy t from stdin"],
        ["Q insert into waits values (1); begin; insert into waits values (2)"],
    ],
)
def test_nobody_can_tell(monkeypatch: pytest.MonkeyPatch, before: list[str], word: str) -> None:
    """Whatever was before it, the client is told the same, and the server hears the same, now and later."""
    said = []
    for way in (at_once.serve, never):
        monkeypatch.setattr(at_once, "serve", way)
        server = ScriptedServer()
        server.on("select wrong", WRONG)
        if before[:1] and "waits" in before[0]:
            server.on("pg_constraint", deferred())
        table = Table(server)
        table.ask(table.core.push("the test"))
        client, other = table.join(), table.join()
        for line in before:
            table.talk(client, line)
        told = [table.talk(client, f"Q {word}")]
        for each in (client, other):
            told += [table.talk(each, line) for line in ("S", "Q select b", "Q begin", "Q insert into t values (2)")]
        told.append(table.ask(table.core.pop()))
        told += [table.talk(client, line) for line in (f"Q {word}", "Q select c")]
        said.append((told, server.heard, [(each.sql, each.has_failed) for each in table.core.journal.read()]))
    assert said[0] == said[1]
