"""What a statement's text says about temporary tables."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.sandbox import sql, temporary
from pytest_chatdify_db.sandbox.statement import Statement
from pytest_chatdify_db.sandbox.temporary import AtCommit, Temporary


def one(text: str) -> Statement:
    """Return the one statement in *text*."""
    (statement,) = sql.parse(text.encode())
    return statement


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("create temp table t (id int)", Temporary("t")),
        ("CREATE LOCAL TEMPORARY TABLE IF NOT EXISTS pg_temp.T AS SELECT 1", Temporary("t")),
        ('create temp table "My ""T""" (id int) on commit drop', Temporary('My "T"', "TABLE", AtCommit.DROP)),
        ("create temp table t (id int) on commit delete rows", Temporary("t", "TABLE", AtCommit.EMPTY)),
        ("create temp table t on commit preserve rows as select 1", Temporary("t")),
        ("create table pg_temp.t (id int)", Temporary("t")),
        ("create or replace temp view v as select 1", Temporary("v", "VIEW")),
        ("create temp recursive view v (n) as select 1", Temporary("v", "VIEW")),
        ("create temporary sequence q", Temporary("q", "SEQUENCE")),
        ("select 1 as id into temp t", Temporary("t")),
        ("select 1 as id into local temporary table t from s", Temporary("t")),
        ("create table t (id int)", None),
        ("create table s.t (temp int)", None),
        ("-- a tag\n/* temp */ create temp table t (a text default 'on commit drop')", Temporary("t")),
        ("select 'into temp t'", None),
        ("select 1 into t", None),
        ("insert into temp values (1)", None),
        ("drop table t", None),
    ],
)
def test_what_is_made(text: str, made: Temporary | None) -> None:
    """Tables, views and sequences, in all spellings, and what COMMIT does to them; nothing that is permanent."""
    assert temporary.made(one(text)) == made


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('drop table if exists t, pg_temp."U" cascade', {"t", "U", "cascade"}),
        ("drop table public.t", set()),
        ("drop function t", set()),
        ("select 1", set()),
    ],
)
def test_what_is_dropped(text: str, names: set[str]) -> None:
    """Names with the schema of permanent tables are none; a keyword too many does no harm."""
    assert temporary.dropped(one(text)) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("select * from t join pg_temp.u on true", {"t", "u"}),
        ("select * from public.t", set()),
        ("update only t set id = 1", {"t"}),
        ("insert into T values (1)", {"t"}),
        ("create temp table t as select * from u", {"t", "u"}),
        ("create table t as select * from u", {"u"}),
        ("select t from u", {"u"}),
    ],
)
def test_what_is_used(text: str, names: set[str]) -> None:
    """Names where a table stands, not those of columns; a permanent table that is made is in nobody's way."""
    assert temporary.used(one(text)) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("alter table t rename to v", {"v", "s"}),
        ('ALTER TABLE IF EXISTS ONLY pg_temp."t" * RENAME TO "V"', {"V", "s"}),
        ("alter sequence s rename to r", {"t", "r"}),
        ("alter table public.t rename to v", {"t", "s"}),
        ("alter table u rename to v", {"t", "s"}),
        ("alter table t rename column a to b", {"t", "s"}),
    ],
)
def test_what_is_renamed(text: str, names: set[str]) -> None:
    """A temporary table has another name from then on, and is the same otherwise."""
    tables = {"t": Temporary("t"), "s": Temporary("s", "SEQUENCE")}
    found = temporary.renamed(tables, one(text))

    assert found.keys() == {table.name for table in found.values()} == names


def test_names_are_the_servers() -> None:
    """A name is sent as the text it is, and in ASCII, although statements are read byte by byte."""
    table = temporary.made(one('create temp table "\xfc" (id int)'))

    assert table is not None
    assert table.drop == r'DROP TABLE IF EXISTS pg_temp.U&"\+0000fc" CASCADE'
    assert r'TRUNCATE pg_temp.U&"\\+0000fc"' in table.empty
