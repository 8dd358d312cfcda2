"""The run-time parameters (SET) of each client, on a session that all clients share.

The rule: the server's session holds the parameters of whoever is served, and ``switch`` writes the difference. Values
are those the server reported after a client's own SET, so that nothing of its syntax has to be understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pytest_chatdify_db.postgres.quoting import quote_literal, quote_name
from pytest_chatdify_db.sandbox.lexer import Token, arguments
from pytest_chatdify_db.sandbox.reading import Reading
from pytest_chatdify_db.sandbox.statement import MODE_PARAMETERS, SESSION_LIMITS, Kind, Statement
from pytest_chatdify_db.sandbox.transactions import NO_SETTINGS, Settings

#: Parameters that other ones hang on: changed first and in this order (SET ROLE is checked against the session user).
_IDENTITY: Final = ("session_authorization", "role")

#: Limits of time that end a statement. The shared session serves others too: they hold while their client is served.
_STATEMENT_LIMITS: Final = frozenset({"statement_timeout", "lock_timeout"})

#: All of them: those that end a session are on the shared one only for a statement that may ask for them.
LIMITS: Final = _STATEMENT_LIMITS | SESSION_LIMITS

#: What may ask for them, or set them by a function.
_ASKS: Final = re.compile(r"timeout|\bpg_settings\b|\bshow\s+all\b", re.IGNORECASE)

#: Those that the server's configuration sets: lifted for good.
LIFT_IDLE: Final = (
    "SELECT pg_catalog.set_config(name,'0',false) FROM pg_catalog.pg_settings WHERE setting <> '0' AND name IN"
    " ('idle_in_transaction_session_timeout','idle_session_timeout','transaction_timeout')"
)

#: Parameters that drivers set, whose values hang on nothing that a test can drop: once valid, always valid.
_NEVER_REFUSED: Final = frozenset(
    {
        "application_name",
        "bytea_output",
        "client_encoding",
        "datestyle",
        "extra_float_digits",
        "intervalstyle",
        "jit",
        "search_path",
        "standard_conforming_strings",
        "timezone",
    }
)

#: Start-up parameters that are no run-time parameters, or that the server does not heed there.
STARTUP_ONLY: Final = (
    frozenset({"user", "database", "options", "replication", "session_authorization"}) | MODE_PARAMETERS
)

#: That of random() is no state to be had back: it cannot be read.
_UNREADABLE: Final = frozenset({"seed"})

#: Words of the start-up parameter ``options``, and what escapes in them.
_OPTION: Final = re.compile(r"(?:\\.|[^\s\\])+", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_FLAGS_WITH_VALUE: Final = frozenset(f"-{letter}" for letter in "BCcDdfhkNprStvW")
_FLAGS: Final = _FLAGS_WITH_VALUE | frozenset(f"-{letter}" for letter in "-bEeFijlnOPsT")

_TRUE: Final = frozenset({"true", "t", "1", "on", "yes", "y", "\x01"})


class BadOption(Exception):
    """A start-up packet's ``options`` cannot be read: *message*, and a hint if there is one, as the server says it."""


class Change(NamedTuple):
    """A parameter that a statement sets, and whether only until the end of the transaction."""

    name: str
    is_local: bool


@dataclass(frozen=True, slots=True)
class InForce:
    """What follows from what a client has set, worked out once for each change of it.

    Args:
        settings: All parameters, by name.
        served: Those that hold while the client is served: all but the limits that end a session.
        lasting: Those that may hold while others are served: all but the limits of time.
        limits: The names of those that do not.
        identity: The roles it has taken, empty if it is who it came as.
        is_read_only: Whether transactions are read-only unless they say otherwise.
        isolation: Their level, likewise.
        reading: How its texts are read; None for as they come.
    """

    settings: Settings
    served: Settings
    lasting: Settings
    limits: frozenset[str]
    identity: tuple[str, ...]
    is_read_only: bool
    isolation: str
    reading: Reading | None

    @classmethod
    def of(cls, settings: Settings) -> InForce:
        """Work it out."""
        limits = LIMITS.intersection(settings)
        has_identity = any(name in settings for name in _IDENTITY)
        return cls(
            settings,
            _without(settings, limits & SESSION_LIMITS),
            _without(settings, limits),
            limits,
            tuple(settings.get(name, "") for name in _IDENTITY) if has_identity else (),
            settings.get("default_transaction_read_only", "off").lower() in _TRUE,
            settings.get("default_transaction_isolation", "read committed").lower(),
            Reading.of(
                settings.get("client_encoding", ""),
                escapes=settings.get("standard_conforming_strings", "on").lower() not in _TRUE,
            ),
        )

    def while_it_runs(self, statements: Iterable[Statement]) -> tuple[Settings, frozenset[str]]:
        """Return the parameters that hold while *statements* run, and which of them are limits to lift behind them."""
        if any(map(_may_ask, statements)):
            return self.settings, self.limits
        return self.served, self.limits - SESSION_LIMITS


def _without(settings: Settings, names: frozenset[str]) -> Settings:
    if not names.intersection(settings):
        return settings
    return {name: value for name, value in settings.items() if name not in names}


def _may_ask(statement: Statement) -> bool:
    return statement.kind is Kind.EXECUTE or _ASKS.search(statement.text) is not None


_NOTHING_IN_FORCE: Final = InForce.of(NO_SETTINGS)


@dataclass(slots=True)
class Parameters:
    """What one client has set.

    Args:
        startup: Parameters of its start-up packet: what RESET returns to.
        session: Set by SET.
        local: Set by SET LOCAL, until the end of the transaction.
        in_force: What follows from them; the same object for as long as none of them changes.
    """

    # Python 3.11 takes no mapping proxy for a default.
    startup: Settings = field(default_factory=lambda: NO_SETTINGS)
    session: Settings = field(default_factory=lambda: NO_SETTINGS)
    local: Settings = field(default_factory=lambda: NO_SETTINGS)
    in_force: InForce = field(default=_NOTHING_IN_FORCE, repr=False)

    @property
    def effective(self) -> Settings:
        """The parameters in force, by name."""
        return self.in_force.settings

    @property
    def identity(self) -> tuple[str, ...]:
        """The roles it has taken, empty if it is who it came as."""
        return self.in_force.identity

    @property
    def is_read_only(self) -> bool:
        """Whether transactions are read-only unless they say otherwise."""
        return self.in_force.is_read_only

    def _change(self, session: Settings, local: Settings) -> None:
        self.session, self.local = session, local
        self.in_force = InForce.of({**self.startup, **session, **local})

    def start(self, startup: Settings) -> None:
        """Begin with the parameters of the start-up packet."""
        self.startup = startup
        self._change(self.session, self.local)

    def reports(self, defaults: Settings, superuser: Mapping[tuple[str, ...], str]) -> Settings:
        """Return what the client is to be told of the parameters that a server reports.

        Args:
            defaults: What it was told when it came.
            superuser: What ``is_superuser`` is for each ``identity``.
        """
        effective = {**self.session, **self.local}
        reports = {name: effective.get(name.lower(), value) for name, value in defaults.items()}
        if self.identity in superuser:
            reports["is_superuser"] = superuser[self.identity]
        return reports

    def snapshot(self) -> tuple[Settings, Settings]:
        """Return what a rollback has to bring back."""
        return self.session, self.local

    def restore(self, snapshot: tuple[Settings, Settings]) -> None:
        """Bring back what *snapshot* holds."""
        session, local = snapshot
        if session is not self.session or local is not self.local:
            self._change(session, local)

    def end_transaction(self) -> None:
        """Forget what was set by SET LOCAL."""
        self.restore((self.session, NO_SETTINGS))

    def reset(self) -> None:
        """Forget everything but the start-up packet: DISCARD ALL."""
        self.restore((NO_SETTINGS, NO_SETTINGS))

    def reset_all(self) -> None:
        """Forget everything but the start-up packet and the roles that were taken: RESET ALL."""
        others = frozenset({*self.session, *self.local}.difference(_IDENTITY))
        self.restore((_without(self.session, others), _without(self.local, others)))

    def learn(self, change: Change, value: str | None) -> None:
        """Note the *value* that the server reports after *change*."""
        if value is None:
            return
        if change.is_local:
            self._change(self.session, {**self.local, change.name: value})
        else:
            self._change({**self.session, change.name: value}, _without(self.local, frozenset({change.name})))

    def forget(self, name: str) -> None:
        """Note RESET of one parameter; that of the session user is one of the role too."""
        names = frozenset(_IDENTITY if name == "session_authorization" else (name,))
        self._change(_without(self.session, names), _without(self.local, names))


def startup_settings(parameters: dict[str, str]) -> dict[str, str]:
    """Return the run-time parameters of a start-up packet, those inside ``options`` (``-c name=value``) included."""
    found = {name.lower(): value for name, value in parameters.items() if name not in STARTUP_ONLY and name[:1] != "_"}
    if "client_encoding" in found:
        found["client_encoding"] = found["client_encoding"].strip("'\"")
    for name, value in _options(parameters.get("options", "")):
        if name not in MODE_PARAMETERS:  # which each transaction has anew
            found.setdefault(name, value)
    return found


def _options(options: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of the parameters among the server's *options* (``pg_split_opts``)."""
    words = (_ESCAPED.sub(r"\1", word) for word in _OPTION.findall(options))
    for word in words:
        flag, given = word[:2], word[2:] or None
        if given is None and flag in _FLAGS_WITH_VALUE:
            given = next(words, None)
        if flag not in _FLAGS or (given is None and flag in _FLAGS_WITH_VALUE):
            text = f"invalid command-line argument for server process: {word}"
            raise BadOption(text, 'Try "postgres --help" for more information.')
        if given is not None and flag in {"-c", "--"}:
            name, equals, value = given.partition("=")
            if not equals:
                raise BadOption(f"{'-c ' if flag == '-c' else '--'}{given} requires a value")
            yield name.replace("-", "_").lower(), value


def changes(statement: Statement, values: Iterable[str | None] = ()) -> list[Change]:
    """Return the parameters *statement* sets; *values* are those bound to its ``$1``, ``$2``, ..."""
    if statement.kind in {Kind.SET, Kind.SET_LOCAL}:
        is_local = statement.kind is Kind.SET_LOCAL
        return _with_role([Change(statement.name, is_local)] if statement.name not in _UNREADABLE else [])
    if statement.kind is Kind.RESET and statement.name in LIMITS:
        return [Change(statement.name, False)]  # to what the server's configuration says
    if "set_config" not in statement.calls:
        return []
    bound = list(values)

    def value(token: Token) -> str:
        if not token.text.startswith("$") or not token.text[1:].isdigit():
            return token.literal  # which may be dollar-quoted
        at = int(token.text[1:]) - 1
        return (bound[at] or "") if 0 <= at < len(bound) else ""

    return _with_role(
        Change(name.lower(), value(given[2][0]).lower() in _TRUE)
        for given in arguments(statement.text, "set_config")
        if len(given) == 3 and all(given) and (name := value(given[0][0])) and name.lower() not in _UNREADABLE
    )


def _with_role(changes: Iterable[Change]) -> list[Change]:
    """Return *changes* and what follows from them: another session user has no role but its own."""
    found = list(changes)
    return found + [Change("role", each.is_local) for each in found if each.name == "session_authorization"]


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
        pairs = (f"pg_catalog.set_config({quote_literal(n)},{_constant(wanted[n])},false)" for n in changed)
        parts.append("SELECT " + ",".join(pairs))
    return ";".join(parts)


def _constant(value: str) -> str:
    """Return *value* as a string constant that reads the same whatever ``client_encoding`` says."""
    if value.isascii():
        return quote_literal(value)
    return " E'" + "".join(c if c.isascii() and c not in "\\'" else f"\\U{ord(c):08x}" for c in value) + "'"


def may_fail(current: Settings, wanted: Settings) -> bool:
    """Return whether the server can have come to refuse one of the *wanted* parameters that differ."""
    if current is wanted:
        return False
    return any(current.get(name) != value for name, value in wanted.items() if name not in _NEVER_REFUSED) or any(
        name not in wanted for name in current if name not in _NEVER_REFUSED
    )


def lift(names: Iterable[str]) -> str:
    """Return the SQL that lets the session run and wait without the limits *names*."""
    return "SELECT " + ",".join(f"pg_catalog.set_config({quote_literal(name)},'0',false)" for name in sorted(names))


def read_back(names: Iterable[str]) -> str:
    """Return the query whose one row holds the values of *names*."""
    return "SELECT " + ",".join(f"pg_catalog.current_setting({quote_literal(name)},true)" for name in names)


def _dotted(name: str) -> str:
    return ".".join(quote_name(part) for part in name.split("."))
