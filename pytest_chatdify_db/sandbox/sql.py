"""From the text of a query to its statements: what each does to transactions and to the session.

The rule: recognise what the sandbox must answer or undo by itself, and leave everything else, wrong SQL included, to
the server.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Final

from pytest_chatdify_db.sandbox.lexer import Token, bare, leading_name, split, tokens
from pytest_chatdify_db.sandbox.statement import CACHED_LENGTH, MODE_PARAMETERS, SESSION_LIMITS, Kind, Modes, Statement

#: With CREATE, which is no name, EXPLAIN ANALYZE makes a table.
_WRITING_WORDS = re.compile(r"\b(?:insert|update|delete|merge|into|create)\b", re.IGNORECASE)
_ROW_LOCK = re.compile(r"\bfor\s+(?:no\s+key\s+)?update\b", re.IGNORECASE)
_ANALYZE = re.compile(r"\banaly[sz]e\b", re.IGNORECASE)
_READS: Final = frozenset({"select", "show", "values", "table", "explain", "with"})
_LIMITING: Final = {
    Kind.SET: Kind.SET_LIMIT,
    Kind.SET_LOCAL: Kind.SET_LOCAL_LIMIT,
    Kind.RESET: Kind.RESET_LIMIT,
}
#: The values of the one parameter of modes that has words for values.
_LEVELS: Final = frozenset({"serializable", "repeatable read", "read committed", "read uncommitted"})
#: All that may stand in the statements that begin and end transactions. With any other word the server finds an error.
_BEGIN_WORDS: Final = frozenset(
    {"begin", "start", "transaction", "work", "isolation", "level", "serializable", "repeatable", "read"}
    | {"committed", "uncommitted", "only", "write", "not", "deferrable"}
)
_END_WORDS: Final = frozenset({"commit", "end", "rollback", "abort", "work", "transaction", "and", "no", "chain"})

#: Statements that end in what they name, or nest: they are read to their end. Of the others the head is enough.
_READ_WHOLE: Final = frozenset(
    {"copy", "fetch", "move", "set", "begin", "start", "commit", "end", "rollback", "abort", "release"}
)
_LEVEL = r"isolation level (?:serializable|repeatable read|read (?:un)?committed)"
_MODE = rf"(?:{_LEVEL}|read (?:only|write)|(?:not )?deferrable)"
_MODES = rf"{_MODE}(?: ?,? {_MODE})*"
_BEGIN = re.compile(rf"(?:begin(?: work| transaction)?|start transaction)(?: {_MODES})?")
_SET_MODES = re.compile(rf"set(?: (?:local|session))? transaction {_MODES}")
_SET_SNAPSHOT = re.compile(r"set(?: session)? transaction snapshot")
_SET_CHARACTERISTICS = re.compile(rf"set session characteristics as transaction {_MODES}")
_END = re.compile(r"(?:commit|end|rollback|abort)(?: work| transaction)?(?: and(?: no)? chain)?")
_ROLLBACK_TO = re.compile(r'rollback(?: work| transaction)? to(?: savepoint)? (?:(?!to\b)[a-z_]\w*|"[^"]+")')
_COMMON_NAME = re.compile(r'[A-Za-z_]\w*(?<!savepoint)|"[^"]+"', re.IGNORECASE)

#: What can only be a name in quotes (appendix C: reserved, some of them but as the names of functions and types).
_RESERVED: Final = frozenset(
    "all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation "
    "column concurrently constraint create cross current_catalog current_date current_role current_schema current_time "
    "current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze "
    "from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like "
    "limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary "
    "references returning right select session_user similar some symmetric system_user table tablesample then to "
    "trailing true union unique user using variadic verbose when where window with".split()
)

#: What may execute a prepared statement, besides EXECUTE.
_EXECUTING: Final = frozenset({"explain", "create"})
_EXECUTE = re.compile(r"\bexecute\b", re.IGNORECASE)

_HEAD_LENGTH: Final = 10


def parse(sql: bytes) -> tuple[Statement, ...]:
    """Return the statements of a query text; none for a text of white space and comments."""
    if len(sql) <= CACHED_LENGTH:
        return _parse_cached(sql)
    return _parse(sql)


def _parse(sql: bytes) -> tuple[Statement, ...]:
    text = sql.decode("latin-1")
    return tuple(filter(None, (_statement(part) for part in split(text))))


_parse_cached = lru_cache(maxsize=2_048)(_parse)


# -- Classification


def _statement(text: str) -> Statement | None:
    first = leading_name(text)
    if first is None:
        head = next(tokens(text), None)
        if head is None:
            return None
        first = head.text
    word = first.lower()
    reader = _READERS.get(word)
    if reader is not None:
        return reader(text, list(islice(tokens(text), None if word in _READ_WHOLE else _HEAD_LENGTH)))
    if word in _EXECUTING and _EXECUTE.search(text) and (executes := _executes(text)) is not None:
        return executes
    if word in _READS or word == "(":
        is_run = word != "explain" or _ANALYZE.search(text) is not None
        return Statement(Kind.WRITE if is_run and _select_writes(text) else Kind.READ, text)
    return Statement(Kind.WRITE, text)


def _executes(text: str) -> Statement | None:
    """Return EXPLAIN, or CREATE TABLE AS, of EXECUTE; None if it is of something else."""
    parts = list(tokens(text))
    words = [part.word for part in parts]
    at = words.index("execute") if "execute" in words else len(words)
    if at + 1 >= len(words) or words[at - 1] not in {"as", "explain", "analyze", "verbose", ")"}:
        return None
    if words[0] == "create" and words[at - 1] != "as":
        return None
    return _named(Kind.EXECUTE, text, parts, at + 1)


def _select_writes(text: str) -> bool:
    if _WRITING_WORDS.search(text) is None:
        return False
    return _WRITING_WORDS.search(_ROW_LOCK.sub("", bare(text))) is not None


def _modes(words: list[str]) -> Modes:
    isolation: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None
    for index, word in enumerate(words):
        following = words[index + 1 : index + 3]
        if word == "level":
            isolation = " ".join(following) if following[:1] in (["read"], ["repeatable"]) else "".join(following[:1])
        elif word == "read" and following[:1] in (["only"], ["write"]):
            read_only = following[0] == "only"
        elif word == "deferrable":
            deferrable = words[index - 1] != "not"
    return Modes(isolation, read_only, deferrable)


def _parameter_modes(name: str, value: str) -> Modes | None:
    """Return what it means to set one of the parameters that stand for modes; None if the server will refuse it."""
    if name == "transaction_isolation":
        return Modes(isolation=value) if value in _LEVELS else None
    if value in {"on", "1"} or (value and ("true".startswith(value) or "yes".startswith(value))):
        is_on = True
    elif value in {"off", "of", "0"} or (value and ("false".startswith(value) or "no".startswith(value))):
        is_on = False
    else:
        return None
    return Modes(read_only=is_on) if name == "transaction_read_only" else Modes(deferrable=is_on)


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
        doubt = _is_doubtful(_ROLLBACK_TO, parts) or _is_odd_name(parts[-1])
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
    """Return whether *name* may be none, or be cut: both are rare, and for the server to say."""
    is_common = _COMMON_NAME.fullmatch(name.text) is not None and name.text.lower() not in _RESERVED
    return not is_common or name.identifier != name.name


def _read_prepare(text: str, parts: list[Token]) -> Statement:
    if _words(parts)[1:2] == ["transaction"]:
        return Statement(Kind.PREPARE_TRANSACTION, text, "PREPARE TRANSACTION")
    return _named(Kind.PREPARE, text, parts, 1)


def _read_set(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    if words[1:2] == ["constraints"]:
        return Statement(Kind.SET_CONSTRAINTS, text)
    if words[1:3] == ["session", "characteristics"]:
        doubt = _is_doubtful(_SET_CHARACTERISTICS, parts)
        return Statement(Kind.SESSION_CHARACTERISTICS, text, "SET", modes=_modes(words), is_doubtful=doubt)
    if words[1:2] == ["transaction"] or (words[1:2] in (["local"], ["session"]) and words[2:3] == ["transaction"]):
        return _set_transaction(text, parts)
    return _set_parameter(text, parts)


def _set_transaction(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    if _SET_SNAPSHOT.fullmatch(" ".join(words[:-1])) and parts[-1].text.endswith("'"):
        return Statement(Kind.SET_TRANSACTION, text, "SET", modes=Modes(snapshot=parts[-1].literal))
    if "snapshot" in words:
        return Statement(Kind.WRITE, text)
    doubt = _is_doubtful(_SET_MODES, parts)
    return Statement(Kind.SET_TRANSACTION, text, "SET", modes=_modes(words), is_doubtful=doubt)


def _set_parameter(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    kind, at = Kind.SET, 1
    if words[1:2] == ["local"]:
        kind, at = Kind.SET_LOCAL, 2
    elif words[1:2] == ["session"] and words[2:3] != ["authorization"]:
        at = 2
    is_reset = words[-1] == "default" or words[at:] == ["time", "zone", "local"]
    if is_reset and kind is Kind.SET:
        kind = Kind.RESET
    name = _setting(parts[at:])
    if name in MODE_PARAMETERS and kind is not Kind.RESET:
        modes = _parameter_modes(name, parts[-1].literal.lower())
        if modes is None:
            return Statement(Kind.WRITE, text)
        is_local = kind is Kind.SET_LOCAL
        return Statement(Kind.SET_TRANSACTION, text, "SET", name=name, modes=modes, is_local=is_local, is_doubtful=True)
    if name in SESSION_LIMITS:
        return Statement(_LIMITING[kind], text, "SET", name=name, is_doubtful=True)
    return Statement(kind, text, "SET", name=name)


def _setting(parts: list[Token]) -> str:
    words = [part.word for part in parts[:2]]
    special = {
        "names": "client_encoding",
        "schema": "search_path",
        "session": "session_authorization",
        "time": "timezone",
        "xml": "xmloption",
    }
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
        return Statement(Kind.RESET_ALL, text, "RESET", is_doubtful=len(parts) > 2)
    name = _setting(parts[1:])
    if name in SESSION_LIMITS:
        return Statement(Kind.RESET_LIMIT, text, "RESET", name=name, is_doubtful=True)
    return Statement(Kind.RESET, text, "RESET", name=name)


def _read_discard(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    if words[1:2] == ["all"]:
        return Statement(Kind.DISCARD_ALL, text, "DISCARD ALL", is_doubtful=len(parts) > 2)
    if words[1:] in (["temp"], ["temporary"]):
        return Statement(Kind.DISCARD_TEMP, text, "DISCARD TEMP")
    return Statement(Kind.WRITE, text)


def _read_copy(text: str, parts: list[Token]) -> Statement:
    words = _words(parts)
    depth = 0
    for index, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if depth == 0 and word in {"from", "to"}:
            if word == "from":
                is_in = words[index + 1 : index + 2] in (["stdin"], ["stdout"])  # the server takes either word
                return Statement(Kind.COPY_IN if is_in else Kind.WRITE, text)
            return Statement(Kind.WRITE if _select_writes(text) else Kind.READ, text)
    return Statement(Kind.WRITE, text)


def _named(kind: Kind, text: str, parts: list[Token], at: int) -> Statement:
    if len(parts) <= at or parts[at].text == '""':
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
        return Statement(Kind.CLOSE_ALL, text, "CLOSE CURSOR ALL", is_doubtful=len(parts) > 2)
    return _named(Kind.CLOSE, text, parts, 1)


def _read_execute(text: str, parts: list[Token]) -> Statement:
    return _named(Kind.EXECUTE, text, parts, 1)


def _read_deallocate(text: str, parts: list[Token]) -> Statement:
    at = 2 if _words(parts)[1:2] == ["prepare"] and len(parts) > 2 else 1
    if _words(parts)[at : at + 1] == ["all"]:
        return Statement(Kind.DEALLOCATE_ALL, text, "DEALLOCATE ALL", is_doubtful=len(parts) > at + 1)
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
