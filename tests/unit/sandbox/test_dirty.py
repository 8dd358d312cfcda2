"""Reads of what another client has not committed: which are, which only look so, and which count."""

from __future__ import annotations

import pytest

from .table import Table


def test_a_dirty_read_keeps_a_frame_from_being_clean(table: Table) -> None:
    """It is to be reported, though nobody is in a transaction any more."""
    writer, reader = table.join(), table.join()
    table.talk(writer, "Q begin; insert into t values (1)")
    table.talk(reader, "Q select * from t")
    table.talk(writer, "Q commit")
    assert not table.core.is_clean

    assert table.ask(table.core.pop())["dirty_reads"]
    assert table.core.is_clean


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
        ("insert into users values ('Ann')", "insert into users (name) select n from notes returning users.name"),
        ("insert into users values (1) on conflict (id) do update set name = 'Ann'", "update notes set text = ''"),
        ("savepoint a; insert into users values (1); rollback to a", "select * from users"),
        ("insert into notes values (1); savepoint a; update users set id = 2; rollback to a", "select * from users"),
    ],
)
def test_what_looks_like_a_dirty_read(table: Table, wrote: str, read: str) -> None:
    """Words in constants and comments are no tables, and a comment in front of an INSERT changes nothing."""
    writer, reader = table.join(), table.join()
    table.talk(writer, "Q begin")
    table.talk(writer, f"Q {wrote}")
    table.talk(reader, f"Q {read}")

    assert table.ask(table.core.pop())["dirty_reads"] == []


@pytest.mark.parametrize(
    ("wrote", "read"),
    [
        ("insert into users values (1); savepoint a; update users set id = 2; rollback to a", "select * from users"),
        ("savepoint a; insert into users values (1); release a", "select * from users"),
        ("update only (users) set id = 2", "select * from users"),
        ("merge into only users using notes on true when matched then delete", "select * from users"),
        ("truncate table users", "select * from users"),
        ("truncate only users", "select * from users"),
        ("insert into users values (1)", "insert into users (name) select name from notes join users using (id)"),
        ("insert into users values (1)", f"select {', '.join(['1 as a_column'] * 400)} from users"),
    ],
)
def test_what_is_a_dirty_read(table: Table, wrote: str, read: str) -> None:
    """However the table was written to, and wherever the reader names it."""
    writer, reader = table.join(), table.join()
    table.talk(writer, "Q begin")
    table.talk(writer, f"Q {wrote}")
    table.talk(reader, f"Q {read}")

    assert [each["table"] for each in table.ask(table.core.pop())["dirty_reads"]] == ["users"]


def test_what_is_a_dirty_read_all_the_same(table: Table) -> None:
    """A quoted table, between constants and comments."""
    writer, reader = table.join(), table.join()
    table.talk(writer, "Q begin")
    table.talk(writer, "Q /* one */ update \"users\" set name = 'it''s' -- two")
    table.talk(reader, 'Q select \'x\' as "it\'s", $$y$$, $1 from "users"')

    (found,) = table.ask(table.core.pop())["dirty_reads"]
    assert found["table"] == "users"
