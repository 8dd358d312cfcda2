"""A statement: what kind it is, and what its words tell of it.

The rule: a statement says what it may do as far as its own text shows. What stands behind its names is the catalog's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Final

from pytest_chatdify_db.sandbox.lexer import NAME, Token, bare, called, folded, leading_name, tokens


class Kind(Enum):
    """What the sandbox has to do about a statement."""

    # That of Enum is written in Python, and every statement is looked up in several sets.
    __hash__ = object.__hash__

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
    SET_LIMIT = auto()
    SET_LOCAL_LIMIT = auto()
    RESET_LIMIT = auto()
    RESET = auto()
    RESET_ALL = auto()
    SET_CONSTRAINTS = auto()
    DISCARD_TEMP = auto()
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
    Kind.SET_LIMIT,
    Kind.SET_LOCAL_LIMIT,
    Kind.RESET_LIMIT,
    Kind.DISCARD_TEMP,
    Kind.DISCARD_ALL,
    Kind.RESET_ALL,
    Kind.CLOSE_ALL,
    Kind.DEALLOCATE_ALL,
}

#: Known to the server by what they say to it, but to the clients by what the sandbox tells them at COMMIT.
SIGNALS: Final = frozenset({Kind.LISTEN, Kind.UNLISTEN, Kind.UNLISTEN_ALL, Kind.NOTIFY})

#: Statements that see no data.
_BLIND: Final = SIGNALS | {
    Kind.EMPTY,
    Kind.SET,
    Kind.SET_LOCAL,
    Kind.RESET,
    Kind.SET_CONSTRAINTS,
    Kind.PREPARE,
    Kind.DEALLOCATE,
}

#: Statements for which the server takes no snapshot.
_NO_SNAPSHOT: Final = _BLIND - {Kind.PREPARE, Kind.DEALLOCATE} | {Kind.LOCK, Kind.CURSOR}

#: Statements that a client may send while its transaction has failed (the server's IsTransactionExitStmt).
EXITS: Final = frozenset({Kind.COMMIT, Kind.ROLLBACK, Kind.ROLLBACK_TO, Kind.PREPARE_TRANSACTION})

#: Parameters that stand for modes of the transaction.
MODE_PARAMETERS: Final = frozenset({"transaction_isolation", "transaction_read_only", "transaction_deferrable"})
#: Limits of time by which the server ends a session, which would be that of all.
SESSION_LIMITS: Final = frozenset(
    {"idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"}
)

#: Bytes of the longest text whose statements are remembered.
CACHED_LENGTH: Final = 8_192

#: Functions by which a query sets a parameter or says something.
_NOTED: Final = frozenset({"set_config", "pg_notify"})
_HARMLESS = re.compile(
    rf"\s*(?:select\s+(?:'[^']*'|[0-9]+|(?:pg_catalog\.)?{NAME}\(\))\s*(?:as\s+\w+\s*)?\Z|show\s)", re.IGNORECASE
)
#: A comment in front of the parenthesis, or a name that is no plain word.
_HIDES_CALLS = re.compile(rf'/\*|--|u&"|"(?!{NAME}")[^"]+"[ \t\n\r]*\(', re.IGNORECASE)
_CURRENT = re.compile(r"\bcurrent\b", re.IGNORECASE)
_RETURNING = re.compile(r"\breturning\b", re.IGNORECASE)
#: What is told of a cursor or of a table's rows, but does not answer with them.
_WITHOUT_ROWS: Final = frozenset({"move", "copy"})


@dataclass(frozen=True)
class Modes:
    """The transaction modes of BEGIN, SET TRANSACTION and their kin, and its snapshot; None where one is not given."""

    isolation: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None
    snapshot: str | None = None


@dataclass(frozen=True)
class Statement:
    """One statement of a query text.

    Args:
        kind: What the sandbox has to do.
        text: The statement as written, without the semicolon.
        tag: The command tag the server answers a control statement with.
        name: The savepoint, parameter, cursor, prepared statement or channel it names.
        argument: The payload of NOTIFY.
        modes: Its transaction modes.
        chain: Whether it says AND CHAIN.
        name_at: Where *name* begins and ends in the text, where it may have to be written otherwise.
        is_holdable: Whether the cursor it declares outlives its transaction.
        is_local: Whether what it sets by the name of a mode's parameter is said to be for the transaction alone.
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
    is_local: bool = False
    is_doubtful: bool = False

    @cached_property
    def verb(self) -> str:
        """Its first word."""
        first = leading_name(self.text)
        return first.lower() if first is not None else next(tokens(self.text)).word

    @cached_property
    def calls(self) -> frozenset[str]:
        """The names that an opening parenthesis follows: every function it calls directly, and some more."""
        if len(self.text) <= CACHED_LENGTH and _HIDES_CALLS.search(self.text):
            return frozenset(folded(token.name) for token in tokens(self.text))
        return called(self.text)

    @cached_property
    def current_of(self) -> Token | None:
        """The name of the cursor whose row it changes, None if that is no cursor's."""
        if _CURRENT.search(self.text) is None:
            return None
        parts = list(tokens(self.text))
        words = [part.word for part in parts]
        found = (at for at in range(3, len(parts)) if words[at - 3 : at] == ["where", "current", "of"])
        return next((parts[at] for at in found), None)

    @cached_property
    def is_plain_read(self) -> bool:
        """Whether it is a query that does nothing else the sandbox must note, unless the catalog knows better."""
        return self.kind is Kind.READ and not any("advisory" in name or name in _NOTED for name in self.calls)

    @cached_property
    def returns_rows(self) -> bool:
        """Whether it answers with rows, as far as its words tell."""
        if self.verb in _WITHOUT_ROWS:
            return False
        is_query = self.kind in {Kind.READ, Kind.CURSOR} or self.verb == "explain"
        return is_query or _RETURNING.search(bare(self.text)) is not None

    @cached_property
    def takes_snapshot(self) -> bool:
        """Whether it is a query as the server understands it: before the first, modes of a transaction can be set."""
        return self.kind not in _NO_SNAPSHOT and self.verb != "show"

    @cached_property
    def reads_data(self) -> bool:
        """Whether it could see what another client wrote: not so for ``SELECT 1`` and its like."""
        if self.kind is Kind.READ:
            return _HARMLESS.match(self.text) is None
        return self.kind not in CONTROL and self.kind not in _BLIND


def overlays(statement: Statement, before: Iterable[Statement]) -> bool:
    """Return whether *statement* may set what one *before* it has set for longer; both are read back behind it."""
    if statement.kind is Kind.SET_LOCAL:
        return any(each.kind in {Kind.SET, Kind.RESET} for each in before)
    sets = statement.kind is Kind.SET or "set_config" in statement.calls
    return sets and any(each.kind is Kind.RESET for each in before)
