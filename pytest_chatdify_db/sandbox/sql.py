"""What a statement does to transactions and to the session, read from its text without executing it.

The rule: recognise what the sandbox must answer or undo by itself, and leave everything else, wrong SQL included, to
the server. Texts are bytes seen as Latin-1, which keeps every offset and every byte of an ASCII-compatible encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property, lru_cache
from itertools import islice
from typing import Final, NamedTuple


class Kind(Enum):
    """What the sandbox has to do about a statement."""

    EMPTY = auto()
    READ = auto()
    WRITE = auto()

    BEGIN = auto()
    COMMIT = auto()
    ROLLBACK = auto()
    SAVEPOINT = auto()
    RELEASE = auto()
    ROLLBACK_TO = auto()
    PREPARE_TRANSACTION = auto()
    SET_TRANSACTION = auto()
    SESSION_CHARACTERISTICS = auto()

    SET = auto()
    SET_LOCAL = auto()
    RESET = auto()
    RESET_ALL = auto()
    SET_CONSTRAINTS = auto()
    DISCARD_ALL = auto()

    COPY_IN = auto()
    DECLARE = auto()
    CURSOR = auto()
    CLOSE = auto()
    CLOSE_ALL = auto()
    LOCK = auto()
    PREPARE = auto()
    EXECUTE = auto()
    DEALLOCATE = auto()
    DEALLOCATE_ALL = auto()
    LISTEN = auto()
    UNLISTEN = auto()
    UNLISTEN_ALL = auto()
    NOTIFY = auto()


#: Statements that begin, end or divide transactions.
TRANSACTIONAL: Final = frozenset(
    {
        Kind.BEGIN,
        Kind.COMMIT,
        Kind.ROLLBACK,
        Kind.SAVEPOINT,
        Kind.RELEASE,
        Kind.ROLLBACK_TO,
        Kind.PREPARE_TRANSACTION,
    }
)

#: Answered from the model of transactions; the server never sees them as they are written.
CONTROL: Final = TRANSACTIONAL | {
    Kind.SET_TRANSACTION,
    Kind.SESSION_CHARACTERISTICS,
    Kind.DISCARD_ALL,
    Kind.RESET_ALL,
    Kind.CLOSE_ALL,
    Kind.DEALLOCATE_ALL,
}

#: Known to the server by what they say to it, but to the clients by what the sandbox tells them at COMMIT.
SIGNALS: Final = frozenset({Kind.LISTEN, Kind.UNLISTEN, Kind.UNLISTEN_ALL, Kind.NOTIFY})

_BLIND: Final = SIGNALS | {
    Kind.EMPTY,
    Kind.SET,
    Kind.SET_LOCAL,
    Kind.RESET,
    Kind.SET_CONSTRAINTS,
    Kind.PREPARE,
    Kind.DEALLOCATE,
}

#: Statements that a client may send while its transaction has failed (the server's IsTransactionExitStmt).
EXITS: Final = frozenset({Kind.COMMIT, Kind.ROLLBACK, Kind.ROLLBACK_TO, Kind.PREPARE_TRANSACTION})


class Token(NamedTuple):
    """A word, quoted name, literal or symbol, and where it stands."""

    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The token in the form keywords are compared in."""
        return self.text.lower()

    @property
    def name(self) -> str:
        """The token as an identifier: folded to lower case, or unquoted."""
        return self.text[1:-1].replace('""', '"') if self.text.startswith('"') else self.text.lower()

    @property
    def literal(self) -> str:
        """The token as a string constant without its quotes."""
        body = self.text.lstrip("eEnNuU&")
        if not body.startswith("'"):
            return self.text
        plain = body[1:-1].replace("''", "'")
        return _ESCAPE.sub(_unescaped, plain) if self.text[0] in "eE" else plain


@dataclass(frozen=True)
class Modes:
    """The transaction modes of BEGIN, SET TRANSACTION and their kin; None where a mode is not given."""

    isolation: str | None = None
    read_only: bool | None = None


@dataclass(frozen=True)
class Statement:
    """One statement of a query text.

    Args:
        kind: What the sandbox has to do.
        text: The statement as written, without the semicolon.
        tag: The command tag the server answers a control statement with.
        name: The savepoint, setting, cursor, prepared statement or channel it names.
        argument: The payload of NOTIFY.
        modes: Its transaction modes.
        chain: Whether it says AND CHAIN.
        is_holdable: Whether the cursor it declares outlives its transaction.
        is_doubtful: Whether it may be a control statement and may be wrong, which the server has to say.
    """

    kind: Kind
    text: str
    tag: str = ""
    name: str = ""
    argument: str = ""
    modes: Modes = Modes()
    chain: bool = False
    name_at: tuple[int, int] = (0, 0)
    is_holdable: bool = False
    is_doubtful: bool = False

    @cached_property
    def calls(self) -> frozenset[str]:
        """The names that an opening parenthesis follows: every function it calls directly, and some more."""
        return frozenset(match.lower() for match in _CALL.findall(self.text))

    @cached_property
    def returns_rows(self) -> bool:
        """Whether it answers with rows, as far as its words tell."""
        return self.kind in {Kind.READ, Kind.CURSOR} or "returning" in self.text.lower()

    @cached_property
    def reads_data(self) -> bool:
        """Whether it could see what another client wrote: not so for ``SELECT 1`` and its like."""
        if self.kind is Kind.READ:
            return _HARMLESS.match(self.text) is None
        return self.kind not in CONTROL and self.kind not in _BLIND


_SPACE = r"[ \t\n\r\f\v]+"
_NAME = r"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*"
_TOKEN = re.compile(
    rf"""
    (?P<space>{_SPACE}|--[^\r\n]*)
  | (?P<comment>/\*)
  | (?P<dollar>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$)
  | (?P<escape>[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+(?:'|\Z|\\\Z))
  | (?P<string>(?:[bBxXnN]|[uU]&)?'[^']*+(?:''[^']*+)*+(?:'|\Z))
  | (?P<quoted>(?:[uU]&)?"[^"]*+(?:""[^"]*+)*+(?:"|\Z))
  | (?P<name>{_NAME})
  | (?P<param>\$[0-9]+)
  | (?P<number>[0-9][0-9A-Za-z_.]*)
  | (?P<symbol>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
#: A name is tried where a word begins, and whole: megabytes of hexadecimal digits would else take for ever.
_CALL = re.compile(rf"(?<![A-Za-z0-9_$\x80-\xff])({_NAME}+)\"?[ \t\n\r]*\(")
_LEAD = re.compile(rf"(?:{_SPACE}|--[^\r\n]*(?:[\r\n]|\Z))*({_NAME})?", re.DOTALL)
_HARMLESS = re.compile(
    rf"\s*(?:select\s+(?:'[^']*'|[0-9]+|(?:pg_catalog\.)?{_NAME}\(\))\s*(?:as\s+\w+\s*)?\Z|show\s)", re.IGNORECASE
)
_WRITING_WORDS = re.compile(r"\b(?:insert|update|delete|merge|into)\b", re.IGNORECASE)
_ROW_LOCK = re.compile(r"\bfor\s+(?:no\s+key\s+)?update\b", re.IGNORECASE)
#: What may hold semicolons that end no statement: function bodies in SQL, and the actions of a rule.
_COMPOUND = re.compile(r"\bbegin\s+atomic\b|\brule\b", re.IGNORECASE)
#: As much of a text as holds no semicolon, dollar quote or comment. One call covers megabytes of literals.
_RUN = re.compile(
    r"""(?:
        [^'"$;/\-0-9A-Za-z_\x80-\xff]++
      | [0-9][0-9A-Za-z_.]*+
      | [eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'
      | '[^']*+(?:''[^']*+)*+'
      | "[^"]*+(?:""[^"]*+)*+"
      | (?![eE]')[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+
      | --[^\r\n]*+
      | -(?!-) | /(?!\*)
      | \$[0-9]++
    )*+""",
    re.VERBOSE | re.DOTALL,
)
_NOISE = re.compile(
    r"""[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'|'[^']*+(?:''[^']*+)*+'|"[^"]*+(?:""[^"]*+)*+\"|--[^\r\n]*+|/\*.*?\*/""",
    re.DOTALL,
)
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$")

_READS: Final = frozenset({"select", "show", "values", "table", "explain", "with"})
#: All that may stand in the statements that begin and end transactions. With any other word the server finds an error.
_BEGIN_WORDS: Final = frozenset(
    [
        "begin",
        "start",
        "transaction",
        "work",
        "isolation",
        "level",
        "read",
        "only",
        "write",
        "committed",
        "uncommitted",
        "repeatable",
        "serializable",
        "not",
        "deferrable",
    ]
)
_END_WORDS: Final = frozenset(["commit", "end", "rollback", "abort", "work", "transaction", "and", "no", "chain"])

#: Statements that end in what they name, or nest: they are read to their end. Of the others the head is enough.
_SHORT: Final = frozenset(
    {"copy", "fetch", "move", "set", "begin", "start", "commit", "end", "rollback", "abort", "release"}
)
_LEVEL = r"isolation level (?:serializable|repeatable read|read (?:un)?committed)"
_MODE = rf"(?:{_LEVEL}|read (?:only|write)|(?:not )?deferrable)"
_BEGIN = re.compile(rf"(?:begin(?: work| transaction)?|start transaction)(?: {_MODE}(?: ?,? {_MODE})*)?")
_END = re.compile(r"(?:commit|end|rollback|abort)(?: work| transaction)?(?: and(?: no)? chain)?")
_ROLLBACK_TO = re.compile(r'rollback(?: work| transaction)? to(?: savepoint)? (?:(?!to\b)[a-z_]\w*|"[^"]+")')
_COMMON_NAME = re.compile(r'[A-Za-z_]\w*(?<!savepoint)|"[^"]+"', re.IGNORECASE)

_HEAD_LENGTH: Final = 10
_CACHED_LENGTH: Final = 8_192


def quote_name(name: str) -> str:
    """Return *name* as a quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """Return *value* as a string constant that reads the same whatever ``standard_conforming_strings`` says."""
    if "\\" in value:
        return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"


def parse(sql: bytes) -> tuple[Statement, ...]:
    """Return the statements of a query text; none for a text of white space and comments."""
    if len(sql) <= _CACHED_LENGTH:
        return _parse_cached(sql)
    return _parse(sql)


def _parse(sql: bytes) -> tuple[Statement, ...]:
    text = sql.decode("latin-1")
    return tuple(filter(None, (_statement(part) for part in _split(text))))


_parse_cached = lru_cache(maxsize=2_048)(_parse)


# -- Lexing


def _unescaped(escape: re.Match[str]) -> str:
    short, long, byte, octal, letter = escape.groups()
    if short or long:
        return chr(int(short or long, 16)).encode("utf-8", "replace").decode("latin-1")
    if byte or octal:
        return chr(int(byte, 16) if byte else int(octal, 8) & 0xFF)
    return str({"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}.get(letter, letter))


def tokens(text: str, start: int = 0) -> Iterator[Token]:
    """Yield the tokens of *text* from *start*, white space and comments left out.

    Block comments nest, and a dollar-quoted string is one token (PostgreSQL 18, sections 4.1.2.4 and 4.1.5).
    """
    position, end = start, len(text)
    while position < end:
        found = _TOKEN.match(text, position)
        assert found is not None  # the last alternative takes any character
        stop, group = found.end(), found.lastgroup
        if group == "comment":
            stop = _comment_end(text, stop)
        elif group == "dollar":
            close = text.find(found.group(), stop)
            stop = end if close < 0 else close + len(found.group())
        if group not in {"space", "comment"}:
            yield Token(text[position:stop], position, stop)
        position = stop


def _comment_end(text: str, position: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, position)
        if edge is None:
            return len(text)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def _split(text: str) -> Iterator[str]:
    if ";" not in text:
        yield text
        return
    ends = _ends_compound(text) if _COMPOUND.search(text) else _ends(text)
    start = 0
    for end in ends:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def _ends(text: str) -> Iterator[int]:
    """Yield the offset of each semicolon that ends a statement."""
    position, end = 0, len(text)
    while position < end:
        run = _RUN.match(text, position)
        assert run is not None  # it may be empty
        position = run.end()
        symbol = text[position : position + 1]
        if symbol == ";":
            yield position
            position += 1
        elif symbol == "/":
            position = _comment_end(text, position + 2)
        elif symbol == "$" and (dollar := _DOLLAR.match(text, position)):
            close = text.find(dollar.group(), dollar.end())
            position = end if close < 0 else close + len(dollar.group())
        elif symbol in {"'", '"'} or (symbol in {"e", "E"} and text[position + 1 : position + 2] == "'"):
            return  # not terminated: the server will say so
        else:
            position += 1


def _ends_compound(text: str) -> Iterator[int]:
    """Do the same for a text in which parentheses or BEGIN ATOMIC ... END may hold semicolons (RULE, FUNCTION)."""
    depth = body = 0
    previous = ""
    for token in tokens(text):
        word = token.word
        if word in {"(", ")"}:
            depth += 1 if word == "(" else -1
        elif word == ";" and depth <= 0 and not body:
            yield token.start
            depth = 0
        elif (word == "atomic" and previous == "begin") or (body and word == "case"):
            body += 1
        elif body and word == "end":
            body -= 1
        previous = word


# -- Classification


def _statement(text: str) -> Statement | None:
    lead = _LEAD.match(text)
    assert lead is not None  # every part of the pattern is optional
    first = lead.group(1)
    if first is None:
        head = next(tokens(text), None)
        if head is None:
            return None
        first = head.text
    word = first.lower()
    reader = _READERS.get(word)
    if reader is not None:
        return reader(text, list(islice(tokens(text), None if word in _SHORT else _HEAD_LENGTH)))
    if word in _READS or word == "(":
        return Statement(Kind.WRITE if _select_writes(text) else Kind.READ, text)
    return Statement(Kind.WRITE, text)


def _select_writes(text: str) -> bool:
    if _WRITING_WORDS.search(text) is None:
        return False
    return _WRITING_WORDS.search(_ROW_LOCK.sub("", _bare(text))) is not None


def _bare(text: str) -> str:
    """Return *text* without its literals, quoted names and comments."""
    return _NOISE.sub(" ", text)


def _modes(words: list[str]) -> Modes:
    isolation: str | None = None
    read_only: bool | None = None
    for index, word in enumerate(words):
        following = words[index + 1 : index + 3]
        if word == "level":
            isolation = " ".join(following) if following[:1] in (["read"], ["repeatable"]) else "".join(following[:1])
        elif word == "read" and following[:1] in (["only"], ["write"]):
            read_only = following[0] == "only"
    return Modes(isolation, read_only)


def _words(parts: list[Token]) -> list[str]:
    return [part.word for part in parts if part.text != ","]


def _chain(words: list[str]) -> bool:
    return words[-2:] == ["and", "chain"]  # and not AND NO CHAIN


def _is_doubtful(pattern: re.Pattern[str], parts: list[Token]) -> bool:
    return pattern.fullmatch(" ".join(part.word for part in parts)) is None


def _read_begin(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    if (words[0] == "start" and words[1:2] != ["transaction"]) or not _BEGIN_WORDS.issuperset(words):
        return Statement(Kind.WRITE, text)
    tag = "START TRANSACTION" if words[0] == "start" else "BEGIN"
    return Statement(Kind.BEGIN, text, tag, modes=_modes(words), is_doubtful=_is_doubtful(_BEGIN, parts))


def _read_commit(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    if not _END_WORDS.issuperset(words):
        return Statement(Kind.WRITE, text)
    return Statement(Kind.COMMIT, text, "COMMIT", chain=_chain(words), is_doubtful=_is_doubtful(_END, parts))


def _read_rollback(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    if words[0] == "rollback" and "to" in words[1:3] and len(parts) <= 5:
        doubt = _is_doubtful(_ROLLBACK_TO, parts)
        return Statement(Kind.ROLLBACK_TO, text, "ROLLBACK", name=parts[-1].name, is_doubtful=doubt)
    if not _END_WORDS.issuperset(words):
        return Statement(Kind.WRITE, text)
    return Statement(Kind.ROLLBACK, text, "ROLLBACK", chain=_chain(words), is_doubtful=_is_doubtful(_END, parts))


def _read_savepoint(text: str, parts: list[Token]) -> Statement:
    if len(parts) != 2:
        return Statement(Kind.WRITE, text)
    return Statement(Kind.SAVEPOINT, text, "SAVEPOINT", name=parts[-1].name, is_doubtful=_is_odd_name(parts[-1]))


def _read_release(text: str, parts: list[Token]) -> Statement:
    if len(parts) != 2 and not (len(parts) == 3 and parts[1].word == "savepoint"):
        return Statement(Kind.WRITE, text)
    return Statement(Kind.RELEASE, text, "RELEASE", name=parts[-1].name, is_doubtful=_is_odd_name(parts[-1]))


def _is_odd_name(name: Token) -> bool:
    """Return whether *name* may be none: a keyword in its place is rare, and for the server to judge."""
    return _COMMON_NAME.fullmatch(name.text) is None


def _read_prepare(text: str, parts: list[Token]) -> Statement:
    if _words(parts)[1:2] == ["transaction"]:
        return Statement(Kind.PREPARE_TRANSACTION, text, "PREPARE TRANSACTION")
    return _named(Kind.PREPARE, text, parts, 1)


def _read_set(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    if words[1:2] == ["constraints"]:
        return Statement(Kind.SET_CONSTRAINTS, text)
    if words[1:2] == ["transaction"]:
        return Statement(Kind.SET_TRANSACTION, text, "SET", modes=_modes(words))
    if words[1:3] == ["session", "characteristics"]:
        return Statement(Kind.SESSION_CHARACTERISTICS, text, "SET", modes=_modes(words))
    kind, at = Kind.SET, 1
    if words[1:2] == ["local"]:
        kind, at = Kind.SET_LOCAL, 2
    elif words[1:2] == ["session"] and words[2:3] != ["authorization"]:
        at = 2
    is_reset = words[-1] == "default" or words[at:] == ["time", "zone", "local"]
    if is_reset and kind is Kind.SET:
        kind = Kind.RESET
    return Statement(kind, text, "SET", name=_setting(parts[at:]))


def _setting(parts: list[Token]) -> str:
    words = [part.word for part in parts[:2]]
    special = {"time": "timezone", "names": "client_encoding", "session": "session_authorization", "xml": "xmloption"}
    if words[:1] and words[0] in special and words[1:] not in (["="], ["to"]):
        return special[words[0]]
    name = ""
    for part in parts:
        if part.text != "." and name and not name.endswith("."):
            break
        name += part.name
    return name


def _read_reset(text: str, parts: list[Token]) -> Statement:
    if _words(parts)[1:2] == ["all"]:
        return Statement(Kind.RESET_ALL, text, "RESET")
    return Statement(Kind.RESET, text, "RESET", name=_setting(parts[1:]))


def _read_discard(text: str, parts: list[Token]) -> Statement:
    if _words(parts)[1:2] == ["all"]:
        return Statement(Kind.DISCARD_ALL, text, "DISCARD ALL")
    return Statement(Kind.WRITE, text)


def _read_copy(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    depth = 0
    for index, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if depth == 0 and word in {"from", "to"}:
            if word == "from":
                return Statement(Kind.COPY_IN if words[index + 1 : index + 2] == ["stdin"] else Kind.WRITE, text)
            return Statement(Kind.WRITE if _select_writes(text) else Kind.READ, text)
    return Statement(Kind.WRITE, text)


def _named(kind: Kind, text: str, parts: list[Token], at: int) -> Statement:
    if len(parts) <= at:
        return Statement(Kind.WRITE, text)
    return Statement(kind, text, name=parts[at].name, name_at=(parts[at].start, parts[at].end))


def _read_declare(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    is_holdable = "hold" in words and words[words.index("hold") - 1] == "with"
    return replace(_named(Kind.DECLARE, text, parts, 1), is_holdable=is_holdable)


def _read_cursor(text: str, parts: list[Token]) -> Statement:
    """FETCH and MOVE: the cursor is the last word, as no direction may follow it."""
    return _named(Kind.CURSOR, text, parts, len(parts) - 1)


def _read_close(text: str, parts: list[Token]) -> Statement:
    if _words(parts)[1:2] == ["all"]:
        return Statement(Kind.CLOSE_ALL, text, "CLOSE CURSOR ALL")
    return _named(Kind.CLOSE, text, parts, 1)


def _read_execute(text: str, parts: list[Token]) -> Statement:
    return _named(Kind.EXECUTE, text, parts, 1)


def _read_deallocate(text: str, parts: list[Token]) -> Statement:
    at = 2 if _words(parts)[1:2] == ["prepare"] and len(parts) > 2 else 1
    if _words(parts)[at : at + 1] == ["all"]:
        return Statement(Kind.DEALLOCATE_ALL, text, "DEALLOCATE ALL")
    return _named(Kind.DEALLOCATE, text, parts, at)


def _read_listen(text: str, parts: list[Token]) -> Statement:
    return Statement(Kind.LISTEN, text, "LISTEN", name=parts[-1].name)


def _read_unlisten(text: str, parts: list[Token]) -> Statement:
    if parts[-1].text == "*":
        return Statement(Kind.UNLISTEN_ALL, text, "UNLISTEN")
    return Statement(Kind.UNLISTEN, text, "UNLISTEN", name=parts[-1].name)


def _read_notify(text: str, parts: list[Token]) -> Statement:
    payload = parts[3].literal if len(parts) > 3 else ""
    return Statement(Kind.NOTIFY, text, "NOTIFY", name=parts[1].name if len(parts) > 1 else "", argument=payload)


def _read_lock(text: str, parts: list[Token]) -> Statement:
    return Statement(Kind.LOCK, text)


_READERS: Final = {
    "begin": _read_begin,
    "start": _read_begin,
    "commit": _read_commit,
    "end": _read_commit,
    "rollback": _read_rollback,
    "abort": _read_rollback,
    "savepoint": _read_savepoint,
    "release": _read_release,
    "prepare": _read_prepare,
    "set": _read_set,
    "reset": _read_reset,
    "discard": _read_discard,
    "copy": _read_copy,
    "declare": _read_declare,
    "fetch": _read_cursor,
    "move": _read_cursor,
    "close": _read_close,
    "execute": _read_execute,
    "deallocate": _read_deallocate,
    "listen": _read_listen,
    "unlisten": _read_unlisten,
    "notify": _read_notify,
    "lock": _read_lock,
}
