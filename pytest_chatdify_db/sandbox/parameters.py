"""The run-time parameters (SET) of each client, on a session that all clients share.

The rule: the server's session holds the parameters of whoever is served, and ``switch`` writes the difference. Values
are those the server reported after a client's own SET, so that nothing of its syntax has to be understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pytest_chatdify_db.postgres.quoting import quote_literal, quote_name
from pytest_chatdify_db.sandbox.lexer import Token, tokens
from pytest_chatdify_db.sandbox.sql import Kind, Statement
from pytest_chatdify_db.sandbox.transactions import NO_SETTINGS, Settings

#: Parameters that other ones hang on: changed first and in this order (SET ROLE is checked against the session user).
_IDENTITY: Final = ("session_authorization", "role")

#: Limits of time. The shared session waits all the time and serves others: they hold only while their client is served.
LIMITS: Final = frozenset(
    {
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "transaction_timeout",
    }
)

#: Start-up parameters that are no run-time parameters.
STARTUP_ONLY: Final = frozenset({"user", "database", "options", "replication"})

_TRUE: Final = frozenset({"true", "t", "1", "on", "yes", "y", "\x01"})


class Change(NamedTuple):
    """A parameter that a statement sets, and whether only until the end of the transaction."""

    name: str
    is_local: bool


@dataclass(slots=True)
class Parameters:
    """What one client has set.

    Args:
        startup: Parameters of its start-up packet: what RESET returns to.
        session: Set by SET.
        local: Set by SET LOCAL, until the end of the transaction.
    """

    startup: Settings = field(default_factory=lambda: NO_SETTINGS)
    session: Settings = field(default_factory=lambda: NO_SETTINGS)
    local: Settings = field(default_factory=lambda: NO_SETTINGS)
    _effective: Settings | None = field(default=None, repr=False)
    _reports: Settings | None = field(default=None, repr=False)

    @property
    def effective(self) -> Settings:
        """The parameters in force, by name."""
        if self._effective is None:
            self._reports = None
            self._effective = {**self.startup, **self.session, **self.local}
        return self._effective

    def start(self, startup: Settings) -> None:
        """Begin with the parameters of the start-up packet."""
        self.startup = startup
        self._effective = None

    @property
    def identity(self) -> tuple[str, ...]:
        """The roles it has taken, empty if it is who it came as."""
        effective = self.effective
        return tuple(effective.get(name, "") for name in _IDENTITY) if any(n in effective for n in _IDENTITY) else ()

    @property
    def is_read_only(self) -> bool:
        """Whether transactions are read-only unless they say otherwise."""
        return self.effective.get("default_transaction_read_only", "off").lower() in {"on", "true", "yes", "1"}

    def reports(self, defaults: Settings, superuser: Mapping[tuple[str, ...], str]) -> Settings:
        """Return what the client is to be told of the parameters that a server reports.

        Args:
            defaults: What it was told when it came.
            superuser: What ``is_superuser`` is for each ``identity``.
        """
        if self._reports is None or self._effective is None:
            effective = {**self.session, **self.local}
            reports = {name: effective.get(name.lower(), value) for name, value in defaults.items()}
            if (identity := self.identity) in superuser:
                reports["is_superuser"] = superuser[identity]
            self._reports = reports
        return self._reports

    def snapshot(self) -> tuple[Settings, Settings]:
        """Return what a rollback has to bring back."""
        return self.session, self.local

    def restore(self, snapshot: tuple[Settings, Settings]) -> None:
        """Bring back what *snapshot* holds."""
        self.session, self.local = snapshot
        self._effective = None

    def end_transaction(self) -> None:
        """Forget what was set by SET LOCAL."""
        self.restore((self.session, NO_SETTINGS))

    def reset(self) -> None:
        """Forget everything but the start-up packet: RESET ALL."""
        self.restore((NO_SETTINGS, NO_SETTINGS))

    def learn(self, change: Change, value: str | None) -> None:
        """Note the *value* that the server reports after *change*."""
        if value is None:
            return
        if change.is_local:
            self.local = {**self.local, change.name: value}
        else:
            self.session = {**self.session, change.name: value}
            self.local = {name: old for name, old in self.local.items() if name != change.name}
        self._effective = None

    def forget(self, name: str) -> None:
        """Note RESET of one parameter."""
        self.session = {key: value for key, value in self.session.items() if key != name}
        self.local = {key: value for key, value in self.local.items() if key != name}
        self._effective = None


def startup_settings(parameters: dict[str, str]) -> dict[str, str]:
    """Return the run-time parameters of a start-up packet, those inside ``options`` (``-c name=value``) included."""
    found = {name.lower(): value for name, value in parameters.items() if name not in STARTUP_ONLY and name[:1] != "_"}
    if "client_encoding" in found:
        found["client_encoding"] = found["client_encoding"].strip("'\"")
    words = [word.replace("\\ ", " ") for word in re.split(r"(?<!\\)\s+", parameters.get("options", "").strip())]
    for flag, word in zip(["", *words], words, strict=False):
        assignment = word if flag == "-c" else word[2:] if word[:2] in {"-c", "--"} and len(word) > 2 else ""
        name, equals, value = assignment.partition("=")
        if equals:
            found.setdefault(name.replace("-", "_").lower(), value)
    return found


def changes(statement: Statement, values: Iterable[str | None] = ()) -> list[Change]:
    """Return the parameters *statement* sets; *values* are those bound to its ``$1``, ``$2``, ..."""
    if statement.kind is Kind.SET:
        return [Change(statement.name, False)]
    if statement.kind is Kind.SET_LOCAL:
        return [Change(statement.name, True)]
    if "set_config" not in statement.calls:
        return []
    bound = list(values)

    def value(token: Token) -> str:
        if not token.text.startswith("$"):
            return token.literal
        at = int(token.text[1:]) - 1
        return (bound[at] or "") if 0 <= at < len(bound) else ""

    found = []
    for name, is_local in _set_configs(statement.text):
        if spelled := value(name):
            found.append(Change(spelled.lower(), value(is_local).lower() in _TRUE))
    return found


def _set_configs(text: str) -> Iterator[tuple[Token, Token]]:
    """Yield the beginnings of the first and the last argument of each call of ``set_config``."""
    parts = list(tokens(text))
    for index, part in enumerate(parts[:-1]):
        if part.name == "set_config" and parts[index + 1].text == "(":
            arguments = _arguments(parts[index + 2 :])
            if len(arguments) == 3 and all(arguments):
                yield arguments[0][0], arguments[2][0]


def _arguments(parts: Sequence[Token]) -> list[list[Token]]:
    """Return the arguments of a call, up to the parenthesis that ends it."""
    found: list[list[Token]] = [[]]
    depth = 1
    for part in parts:
        depth += (part.text == "(") - (part.text == ")")
        if not depth:
            break
        if part.text == "," and depth == 1:
            found.append([])
        else:
            found[-1].append(part)
    return found


def switch(current: Settings, wanted: Settings) -> str:
    """Return the SQL that turns a session's *current* parameters into the *wanted* ones; empty if they are the same."""
    if current is wanted or current == wanted:
        return ""
    dropped = [name for name in current if name not in wanted]
    changed = [name for name in wanted if current.get(name) != wanted[name]]
    if any(name in _IDENTITY for name in [*dropped, *changed]):
        # Another role may not be allowed to change what this one was: go back to the first one, then forth.
        dropped = [*(name for name in _IDENTITY if name in current), *(n for n in dropped if n not in _IDENTITY)]
        changed = [*(n for n in changed if n not in _IDENTITY), *(name for name in _IDENTITY if name in wanted)]
    parts = [f"RESET {_dotted(name)}" for name in dropped]
    if changed:
        pairs = (f"pg_catalog.set_config({quote_literal(n)},{quote_literal(wanted[n])},false)" for n in changed)
        parts.append("SELECT " + ",".join(pairs))
    return ";".join(parts)


def limits(effective: Settings, changes: Iterable[Change] = ()) -> frozenset[str]:
    """Return those limits of time that hold while a client is served."""
    return LIMITS.intersection(effective) | LIMITS.intersection(change.name for change in changes)


def lift(names: Iterable[str]) -> str:
    """Return the SQL that lets the session run and wait without the limits *names*."""
    return "SELECT " + ",".join(f"pg_catalog.set_config({quote_literal(name)},'0',false)" for name in sorted(names))


def read_back(names: Iterable[str]) -> str:
    """Return the query whose one row holds the values of *names*."""
    return "SELECT " + ",".join(f"pg_catalog.current_setting({quote_literal(name)},true)" for name in names)


def _dotted(name: str) -> str:
    return ".".join(quote_name(part) for part in name.split("."))
