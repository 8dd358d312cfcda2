"""Texts in encodings with ASCII inside of characters, and strings in which a backslash escapes, are read rightly."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import quoting, wire
from pytest_chatdify_db.sandbox import lexer, sql, texts
from pytest_chatdify_db.sandbox.reading import Reading

from .table import ScriptedServer, Table


@pytest.mark.parametrize(
    ("encoding", "codec", "text", "count"),
    [
        ("SJIS", "shift_jis", "select E'ソ'; commit; select E'ソ'", 3),
        ("Shift-JIS", "shift_jis", "select 'ﾁ'; savepoint データ", 2),
        ("windows-950", "big5", "select E'功'; commit", 2),
        ("gb18030", "gb18030", "select E'\u00a6誠\U0001f600'; commit", 2),
    ],
)
def test_characters_whose_second_byte_is_ascii(encoding: str, codec: str, text: str, count: int) -> None:
    """They are neither backslashes nor symbols, and all bytes stay where they are."""
    reading = Reading.of(encoding, escapes=False)
    assert reading is not None
    encoded = text.encode(codec)

    readable = reading.readable(encoded)
    assert len(readable) == len(encoded)
    assert [at for _, at in texts.parts(readable)] == [0] + [n + 1 for n, byte in enumerate(encoded) if byte == 59]
    assert len(sql.parse(readable)) == count


@pytest.mark.parametrize("encoding", ["", "UTF8", "LATIN1", "EUC_JP", "SQL_ASCII"])
def test_other_encodings_are_read_as_they_come(encoding: str) -> None:
    """No byte of theirs looks like one of ASCII."""
    assert Reading.of(encoding, escapes=False) is None


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (r"select 'a\'; commit; --'", 1),
        (r"select '\''; commit; select '\''", 3),
        (r"""select "\"; select $$\'$$; select 1 -- \'""", 3),
        ("select 1; select 2", 2),
    ],
)
def test_strings_with_backslashes(text: str, count: int) -> None:
    """What is a string then hangs on them, in plain strings as in those with an E."""
    reading = Reading.of("", escapes=True)
    assert reading is not None

    assert len(sql.parse(reading.readable(text.encode()))) == count


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (r'U&"d\0061t\+000061"', "data"),
        ("u&\"d!0061!!\" -- a comment\n UESCAPE '!'", "da!"),
        (r'U&"a""\D83D\DE00"', 'a"\U0001f600'),
        (r"U&'it''s \00e9'", "it's é"),
        (r"U&'\+FFFFFF'", "\U0010ffff"),
        (r'U&"not terminated', r'U&"not terminated'),
    ],
)
def test_strings_and_names_with_unicode_escapes(text: str, name: str) -> None:
    """One token, which stands for what the escapes say."""
    (token,) = lexer.tokens(text)

    assert (token.text, token.literal.encode("latin-1").decode()) == (text, name)
    assert token.identifier == token.literal


def test_names_read_the_same_in_any_encoding() -> None:
    """They are said in ASCII."""
    assert quoting.in_ascii('public."b"".\\c"') == 'public."b"".\\c"'
    assert quoting.in_ascii('public."bé""\\"') == 'public.U&"b\\+0000e9""\\+00005c"'


def test_names_that_are_not_ascii_in_another_encoding(table: Table, server: ScriptedServer) -> None:
    """On the server they are in ASCII: it would refuse the bytes when it serves the next client."""
    client = table.join(client_encoding="LATIN1")
    client.reported["client_encoding"] = client.defaults["client_encoding"] = "LATIN1"  # as the server would say

    table.feed(client, wire.query(b"execute \xe9"))

    assert server.heard[-1].startswith('execute "chatdify.')
    assert all(text.isascii() for text in server.heard)
    assert table.core.session.cursors.server_name(client, b"\xe9").isascii()
    assert table.core.session.cursors.server_name(client, b"c") == b"c"


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [("UTF8", "utf-8"), ("LATIN1", "latin-1"), ("WIN1251", "cp1251"), ("KOI8R", "koi8-r"), ("EUC_JP", "euc_jp")],
)
def test_text_in_an_encoding(encoding: str, codec: str) -> None:
    """By the server's name of it; of one that Python does not know, the bytes are characters."""
    text = "\u044f" if encoding != "LATIN1" else "\u00e9"
    seen = text.encode(codec).decode("latin-1")

    assert lexer.text_of(seen, encoding) == text
    assert lexer.text_of(seen, "MULE_INTERNAL") == seen
