"""A statement that an engine executed, and how it is shown: in one line, shortened, its secrets masked.

Pure. The rule: what is kept of a statement is what the engine already has; text is made only when somebody reads it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

#: How the sessions of the fixtures are called; they are the test's own, not the application's.
OWN_SESSIONS: Final = ("session", "sync_session")

#: Sent by SQLAlchemy's own savepoints, or by hand to steer a transaction: not what a query budget is about.
_CONTROL: Final = re.compile(
    r"\s*(SAVEPOINT|RELEASE|ROLLBACK|BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|SET\s+TRANSACTION|SET\s+LOCAL)\b",
    re.IGNORECASE,
)
_WRITE: Final = re.compile(
    r"\s*(INSERT|UPDATE|DELETE|MERGE|COPY|CREATE|ALTER|DROP|TRUNCATE|WITH\b.*\b(INSERT|UPDATE|DELETE|MERGE))\b",
    re.IGNORECASE | re.DOTALL,
)
_COLUMNS: Final = re.compile(r"^(SELECT (?:DISTINCT )?)(.{80,}?)( FROM )")
#: How SQLAlchemy writes an INSERT of many rows whose keys it wants back in order.
_MANY_ROWS: Final = re.compile(r" SELECT p0::.*? FROM \(VALUES .*\) AS imp_sen\(.*?\) ORDER BY sen_counter")
_PLACEHOLDER: Final = re.compile(r"%s|%\(\w+\)s")
_LONGEST: Final = 300
_LONGEST_VALUE: Final = 40
_MOST_VALUES: Final = 8
_MOST_COLUMNS: Final = 60


@dataclass(frozen=True, slots=True)
class Line:
    """A line of Python.

    Args:
        file: The path of its file, relative to the root of the run if it is inside.
        number: Its number.
        function: The name of the function it is in.
    """

    file: str
    number: int
    function: str

    def __str__(self) -> str:
        """Return it as an editor finds it."""
        place = f"{self.file}:{self.number}"
        return place if self.function == "<module>" else f"{place} in {self.function}"


@dataclass(eq=False, slots=True)
class Statement:
    """One statement that an engine executed, or the end of a transaction.

    Args:
        sql: Its text, as sent; ``COMMIT`` or ``ROLLBACK`` for the end of a transaction.
        driver: ``psycopg2``, ``asyncpg``...
        is_many: Whether it was sent with many sets of parameters.
        actor: On whose behalf: ``session``, ``request GET /orders``, ``task ship[1f2e3d4c]``, ``test``...
        client: The number of the connection, which drivers know as the process id of the server.
        line: The line that caused it, in the project; None if there is none.
        parameters: Its parameters as the driver got them.
        names: The names of positional parameters, where SQLAlchemy knows them.
        relationship: The relationship that a lazy load was for; empty for any other statement.
        seconds: How long it took; None while it runs.
        rows: How many rows it returned or changed; None if the driver does not say.
        error: The first line of what went wrong; empty if nothing did.
        thread: The thread that executed it; an asyncio driver's is that of the event loop.
    """

    sql: str
    driver: str
    is_many: bool = False
    actor: str = ""
    client: int | None = None
    line: Line | None = None
    parameters: object = None
    names: Sequence[str] | None = None
    relationship: str = ""
    seconds: float | None = None
    rows: int | None = None
    error: str = ""
    thread: int = 0

    def __str__(self) -> str:
        """Return the statement in one line, shortened."""
        return f"[{self.driver}] {one_line(self.sql)}" + (" (executemany)" if self.is_many else "")

    @property
    def is_control(self) -> bool:
        """Whether it only steers a transaction."""
        return is_control(self.sql)

    @property
    def is_write(self) -> bool:
        """Whether it looks like a change of data or of the schema."""
        return is_write(self.sql)

    def was_sent_as(self, sql: str) -> bool:
        """Whether *sql* is what a server saw of it; psycopg2 puts the parameters into the text."""
        return _pattern(self.sql).fullmatch(sql.strip().rstrip(";")) is not None


@lru_cache(maxsize=256)
def _pattern(sql: str) -> re.Pattern[str]:
    fixed = _PLACEHOLDER.split(sql.strip().rstrip(";"))
    return re.compile(".*?".join(re.escape(part.replace("%%", "%")) for part in fixed), re.DOTALL)


@lru_cache(maxsize=1_024)
def is_control(sql: str) -> bool:
    """Whether *sql* only steers a transaction."""
    return _CONTROL.match(sql) is not None


@lru_cache(maxsize=1_024)
def is_write(sql: str) -> bool:
    """Whether *sql* looks like a change of data or of the schema."""
    return not is_control(sql) and _WRITE.match(sql) is not None


def one_line(sql: str, longest: int = _LONGEST) -> str:
    """Return *sql* without line breaks; of many rows or columns, and of a long text, the beginning."""
    line = _MANY_ROWS.sub(" VALUES ...", " ".join(sql.split()))
    line = _COLUMNS.sub(_without_most_columns, line)
    return line if len(line) <= longest else line[: longest - 4] + " ..."


def _without_most_columns(found: re.Match[str]) -> str:
    columns = found[2][:_MOST_COLUMNS].rpartition(",")[0] or found[2][:_MOST_COLUMNS]
    return f"{found[1]}{columns}, ...{found[3]}"


def shown_parameters(statement: Statement, masked: Sequence[str]) -> str:
    """Return the statement's parameters, shortened; empty if it has none.

    Args:
        statement: The statement.
        masked: Parts of names, in lower case: a parameter whose name has one of them is shown as ``***``.
    """
    given: Any = statement.parameters
    more = f" and {len(given) - 1} more" if _is_of_many(statement) and len(given) > 1 else ""
    named = named_parameters(statement)
    shown = [f"{name}={_value(name, value, masked)}" for name, value in named[:_MOST_VALUES]]
    if len(named) > _MOST_VALUES:
        shown.append(f"... {len(named) - _MOST_VALUES} more")
    return ", ".join(shown) + more


def named_parameters(statement: Statement) -> list[tuple[str, object]]:
    """Return the statement's parameters with their names, of many sets the first."""
    return _named(first_parameters(statement), statement.names)


def first_parameters(statement: Statement) -> object:
    """Return the statement's parameters, of many sets the first."""
    given: Any = statement.parameters
    return given[0] if _is_of_many(statement) else given


def is_masked(name: str, masked: Sequence[str]) -> bool:
    """Return whether the value of a parameter called *name* is not shown."""
    return any(part in name.lower() for part in masked)


def _is_of_many(statement: Statement) -> bool:
    """Return whether its parameters are several sets; many rows in one INSERT are sent as one flat set."""
    given = statement.parameters
    if not statement.is_many or not isinstance(given, Sequence) or not given:
        return False
    return isinstance(given[0], (Mapping, tuple, list))


def _named(given: object, names: Sequence[str] | None) -> list[tuple[str, object]]:
    if isinstance(given, Mapping):
        return [(str(name), value) for name, value in given.items()]
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        return []
    if names is None or len(names) != len(given):
        names = [f"${position}" for position in range(1, len(given) + 1)]
    return list(zip(names, given, strict=True))


def _value(name: str, value: object, masked: Sequence[str]) -> str:
    if is_masked(name, masked):
        return "***"
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
