"""Reading statements: what each does to transactions and the session, and where one ends and the next begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_chatdify_db.postgres import quoting
from pytest_chatdify_db.sandbox import lexer, sql
from pytest_chatdify_db.sandbox.statement import Kind, Modes, Statement

K = Kind


def one(text: str) -> Statement:
    """Return the only statement of *text*."""
    (statement,) = sql.parse(text.encode())
    return statement


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("select 1", K.READ, ""),
        ("(select 1)", K.READ, ""),
        ("SELECT * FROM t FOR NO KEY UPDATE", K.READ, ""),
        ("select 'insert into'", K.READ, ""),
        ("select $$'$$ from t for update /* ' */", K.READ, ""),
        ("with x as (select $$'$$), y as (delete from t) select '", K.WRITE, ""),
        ("with x as (select 1 /* /* */ ' */), y as (delete from t) select '", K.WRITE, ""),
        ("explain analyze create table t as select 1", K.WRITE, ""),
        ('savepoint U&"d\\0061"', K.SAVEPOINT, "da"),
        ("rollback to U&\"d!0061\" uescape '!'", K.ROLLBACK_TO, "da"),
        ("copy t from stdout", K.COPY_IN, ""),
        ("create function f() returns int begin atomic select 1 as end, t.case from t; end", K.WRITE, ""),
        ("select * into copy from t", K.WRITE, ""),
        ("with x as (delete from t returning *) select * from x", K.WRITE, ""),
        ("explain analyze update t set a = 1", K.WRITE, ""),
        ("explain (analyse) update t set a = 1", K.WRITE, ""),
        ("explain update t set a = 1", K.READ, ""),
        ("table t", K.READ, ""),
        ("insert into t values (1)", K.WRITE, ""),
        ("-- a comment\n/* /* nested */ */ insert into t", K.WRITE, ""),
        ("nonsense", K.WRITE, ""),
        ("begin", K.BEGIN, ""),
        ("start transaction", K.BEGIN, ""),
        ("start engine", K.WRITE, ""),
        ("commit and chain", K.COMMIT, ""),
        ("end work", K.COMMIT, ""),
        ("commit prepared 'x'", K.WRITE, ""),
        ("abort", K.ROLLBACK, ""),
        ("rollback prepared 'x'", K.WRITE, ""),
        ("rollback to savepoint A", K.ROLLBACK_TO, "a"),
        ('rollback work to "A b"', K.ROLLBACK_TO, "A b"),
        ('savepoint "a""b"', K.SAVEPOINT, 'a"b'),
        ("savepoint", K.WRITE, ""),
        ("release savepoint a", K.RELEASE, "a"),
        ("release a", K.RELEASE, "a"),
        ("release a b", K.WRITE, ""),
        ("prepare transaction 'x'", K.PREPARE_TRANSACTION, ""),
        ("prepare p as select 1", K.PREPARE, "p"),
        ("prepare", K.WRITE, ""),
        ("execute p(1)", K.EXECUTE, "p"),
        ("explain (analyze) execute p", K.EXECUTE, "p"),
        ("explain create table t as execute p(1)", K.EXECUTE, "p"),
        ("explain select 1 as execute", K.READ, ""),
        ("explain select a execute from t", K.READ, ""),
        ("create table t (a) as execute p", K.EXECUTE, "p"),
        ("create trigger t before insert on t execute function f()", K.WRITE, ""),
        ("create trigger t before update on t for each row when (old.a > 1) execute function f()", K.WRITE, ""),
        ("create function f() returns int as $$ execute $$", K.WRITE, ""),
        ("create rule r as on insert to t do (execute p)", K.WRITE, ""),
        ("deallocate prepare p", K.DEALLOCATE, "p"),
        ("deallocate prepare", K.DEALLOCATE, "prepare"),
        ("deallocate all", K.DEALLOCATE_ALL, ""),
        ("set a.b = 1", K.SET, "a.b"),
        ("set session time zone 'UTC'", K.SET, "timezone"),
        ("set time zone local", K.RESET, "timezone"),
        ("set names 'utf8'", K.SET, "client_encoding"),
        ("set session authorization bob", K.SET, "session_authorization"),
        ("set work_mem to default", K.RESET, "work_mem"),
        ("set transaction_read_only to default", K.RESET, "transaction_read_only"),
        ("set transaction_read_only to maybe", K.WRITE, ""),
        ("set transaction_isolation to 'chaos'", K.WRITE, ""),
        ("set transaction snapshot 'x'", K.SET_TRANSACTION, ""),
        ("set transaction snapshot x", K.WRITE, ""),
        ("set idle_session_timeout = 1", K.SET_LIMIT, "idle_session_timeout"),
        ("set local transaction_timeout = 1", K.SET_LOCAL_LIMIT, "transaction_timeout"),
        ("set idle_session_timeout to default", K.RESET_LIMIT, "idle_session_timeout"),
        ("reset idle_in_transaction_session_timeout", K.RESET_LIMIT, "idle_in_transaction_session_timeout"),
        ("set local work_mem = '1MB'", K.SET_LOCAL, "work_mem"),
        ("set constraints all deferred", K.SET_CONSTRAINTS, ""),
        ("reset work_mem", K.RESET, "work_mem"),
        ("reset all", K.RESET_ALL, ""),
        ("discard all", K.DISCARD_ALL, ""),
        ("discard plans", K.WRITE, ""),
        ("copy t from stdin", K.COPY_IN, ""),
        ("copy t (a, b) from stdin with (format binary)", K.COPY_IN, ""),
        ("copy t from '/file'", K.WRITE, ""),
        ("copy t to stdout", K.READ, ""),
        ("copy (delete from t returning *) to stdout", K.WRITE, ""),
        ("copy t", K.WRITE, ""),
        ("declare c cursor for select 1", K.DECLARE, "c"),
        ("fetch forward 5 from c", K.CURSOR, "c"),
        ("move c", K.CURSOR, "c"),
        ("close c", K.CLOSE, "c"),
        ("close all", K.CLOSE_ALL, ""),
        ("lock t", K.LOCK, ""),
        ("listen Ch", K.LISTEN, "ch"),
        ("listen " + "a" * 70, K.LISTEN, "a" * 63),
        ("unlisten ch", K.UNLISTEN, "ch"),
        ("unlisten *", K.UNLISTEN_ALL, ""),
        ("notify ch", K.NOTIFY, "ch"),
    ],
)
def test_statements_are_told_apart(text: str, kind: Kind, name: str) -> None:
    """Each has its kind and the name it acts on."""
    statement = one(text)

    assert (statement.kind, statement.name) == (kind, name)


@pytest.mark.parametrize(
    ("text", "modes"),
    [
        ("begin", Modes()),
        ("begin isolation level repeatable read, read only", Modes("repeatable read", read_only=True)),
        ("start transaction read write isolation level serializable", Modes("serializable", read_only=False)),
        ("set transaction isolation level read committed", Modes("read committed")),
        ("set session characteristics as transaction read only", Modes(read_only=True)),
        ("set local transaction not deferrable", Modes(deferrable=False)),
        ("begin deferrable", Modes(deferrable=True)),
        ("set transaction_isolation = 'Serializable'", Modes("serializable")),
        ("set transaction_read_only = 'tr'", Modes(read_only=True)),
        ("set session transaction_read_only to off", Modes(read_only=False)),
        ("set transaction_read_only = y", Modes(read_only=True)),
        ("set transaction_read_only = n", Modes(read_only=False)),
        ("set transaction_deferrable = 0", Modes(deferrable=False)),
    ],
)
def test_transaction_modes_are_read(text: str, modes: Modes) -> None:
    """The isolation level and the access mode, where they are given."""
    assert one(text).modes == modes


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("notify c, 'it''s'", "it's"),
        (r"notify c, E'a\n\x41\101\u0041'", "a\nAAA"),
        ("notify c, 'it' -- isn't\n 's'", "its"),
        ("notify c, E'it\\'' -- isn't\r\n 's''\\'' -- not its second part: that would be on another line", "it's''"),
        ("notify c", ""),
    ],
)
def test_the_payload_of_a_notification_is_read(text: str, payload: str) -> None:
    """As a plain string or one with escapes."""
    assert one(text).argument == payload


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        (" ; -- nothing\n ; /* */", []),
        ("select 1; select 2", ["select 1", " select 2"]),
        ("select ';', \";\", $$;$$, $a$ ; $$ $a$, E'\\';' /* ; */ -- ;\n; commit", None),
        ("select E'a' -- it's\n\r 'b\\'; commit; select \\''; commit", None),
        ("select 'a'\n 'b\\'; commit", None),
        ("select E'a' 'b\\'; commit", None),
        ("create rule r as on insert to t do also (delete from u; delete from v); select 1", None),
        (
            "create function f() returns int begin atomic select 1; select case when true then 1 end; end; select 1",
            None,
        ),
    ],
)
def test_texts_are_split_where_statements_end(text: str, parts: list[str] | None) -> None:
    """Not in literals, names, comments or bodies; where no parts are given, there are two."""
    found = [statement.text for statement in sql.parse(text.encode())]

    assert len(found) == 2 if parts is None else found == parts


@pytest.mark.parametrize("text", ["select 'open", 'select "open', "select $$open", "select /* open", "select E'open\\"])
def test_what_is_not_terminated_goes_to_the_server_whole(text: str) -> None:
    """It says what is wrong with it."""
    assert [statement.text for statement in sql.parse(f"{text}; commit".encode())] == [f"{text}; commit"]


_PIECES = st.sampled_from(
    ["select", "begin", ";", "'", "''", '"', "$$", "$a$", "/*", "*/", "--", "\n", "e'", "\\", "$1", " ", "x", "-", "/"]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(_PIECES, max_size=25).map("".join).filter(lambda text: not lexer.is_compound(text)))
def test_both_ways_to_split_agree(text: str) -> None:
    """The fast one finds the semicolons that the tokens show."""
    slow = [token.start for token in lexer.tokens(text) if token.text == ";"]

    assert list(lexer.ends(text)) == slow


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(_PIECES, max_size=25).map(lambda parts: "".join(parts).encode())))
def test_any_bytes_are_read(text: bytes) -> None:
    """Nothing raises, and what is found is part of the text."""
    for statement in sql.parse(text):
        assert statement.text.encode("latin-1") in text


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("select 1", False),
        ("select pg_catalog.version()", False),
        ("show work_mem", False),
        ("select * from t", True),
        ("update t set a = 1", True),
        ("set work_mem = 1", False),
        ("commit", False),
    ],
)
def test_some_statements_see_no_data(text: str, reads: bool) -> None:
    """What a driver asks on its own account is not what a conflict matters for."""
    assert one(text).reads_data is reads


def test_calls_are_found_in_a_long_literal() -> None:
    """Megabytes of hexadecimal digits, as a driver sends binary data, do not take for ever."""
    statement = one('SELECT f(1), "G" (2), \'' + "0a1b" * 1_000_000 + "'")

    assert statement.calls == {"f", "g"}


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("'it''s'", "it's"),
        (r"E'\\'", "\\"),
        ("$$it's$$", "it's"),
        ("$a$b$$c$a$", "b$$c"),
        (r"E'\UFFFFFFFF'", "\xf4\x8f\xbf\xbf"),
        ("$1", "$1"),
        ("$", "$"),
    ],
)
def test_a_constant_without_its_quotes(text: str, literal: str) -> None:
    """Of either sort; what is none stays as it is."""
    assert next(lexer.tokens(text)).literal == literal


def test_names_and_literals_are_quoted() -> None:
    """So that they read the same whatever they hold."""
    assert quoting.quote_name('a"b') == '"a""b"'
    assert quoting.quote_literal("it's") == "'it''s'"
    assert quoting.quote_literal("a\\b'") == " E'a\\\\b'''"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("select f(a, 'b' || c, (1))", [["a", "'b'|", "("]]),
        ("select f(g(1), f(2))", [["2"], ["g(", "f("]]),
        ("select f(), f)(", [[""]]),
        ("select 'f(1)' /* f(2) */, g(3), f(4", []),
        ("select f(" * 50_000, []),
    ],
)
def test_arguments_are_found(text: str, found: list[list[str]]) -> None:
    """Of each call that is complete, inner ones first; of each argument how it begins."""
    calls = [["".join(token.text for token in each) for each in call] for call in lexer.arguments(text, "f")]

    assert calls == found


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("AbC", "abc"),
        ("\u00c9tat", "\u00c9tat"),
        ('"AbC"', "AbC"),
        ("\u00e9" * 40, "\u00e9" * 31),
        ("a" * 64, "a" * 63),
    ],
)
def test_identifiers_are_folded_and_cut(identifier: str, name: str) -> None:
    """As PostgreSQL does it with UTF-8: no letter but those of ASCII has another case, and none is cut in two."""
    (token,) = lexer.tokens(identifier.encode().decode("latin-1"))

    assert token.name.encode("latin-1").decode() == name


def test_functions_are_found_whatever_letters_they_have() -> None:
    """Only those of ASCII are folded."""
    (statement,) = sql.parse("select \u00c9crire(), NOW()".encode())

    assert statement.calls == {"\u00c9crire".encode().decode("latin-1"), "now"}


def _repeated_possessively(parsed: Any) -> Iterator[Any]:
    """Yield the inside of each possessive repetition in what a regular expression was parsed to."""
    for operation, argument in parsed:
        if str(operation) == "POSSESSIVE_REPEAT":
            yield argument[-1]
        for part in argument if isinstance(argument, tuple) else (argument,):
            for inside in part if isinstance(part, list) else (part,):
                if hasattr(inside, "getwidth"):
                    yield from _repeated_possessively(inside)


def test_possessive_repetitions_are_right_in_early_pythons() -> None:
    """What is repeated possessively is one character or an atomic group: others go wrong up to Python 3.11.4."""
    patterns = [value for value in vars(lexer).values() if isinstance(value, re.Pattern)]
    parse = import_module("re._parser").parse
    found = [inside for each in patterns for inside in _repeated_possessively(parse(each.pattern, each.flags))]

    kinds = {" ".join(str(operation) for operation, _ in inside) for inside in found}
    assert kinds == {"ATOMIC_GROUP", "IN", "NOT_LITERAL"}


@pytest.mark.parametrize(
    ("text", "answers_with_rows"),
    [
        (b"select 1", True),
        (b"fetch c", True),
        (b"explain analyze delete from items", True),
        (b"update items set name = 'x' returning id", True),
        (b"update items set name = 'returning'", False),
        (b"move c", False),
        (b"copy items to stdout", False),
    ],
)
def test_what_answers_with_rows(text: bytes, answers_with_rows: bool) -> None:
    """MOVE and COPY do not, and a word in a literal is none."""
    (statement,) = sql.parse(text)

    assert statement.returns_rows is answers_with_rows
