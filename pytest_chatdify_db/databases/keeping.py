"""The databases of failed tests, kept so that they can be looked into when the run is over.

A test's own database is kept as it is. What a test wrote in the sandbox nobody could see when it is rolled back, so its
rows are copied into a database of their own before that. The rule: what is kept has an end. A server that the plugin
started goes on for an hour after the run, or until its user says so; on any other one a later run drops what is old.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Final

from pytest_chatdify_db import naming
from pytest_chatdify_db.databases import copies, psql, templates
from pytest_chatdify_db.errors import ChatdifyDBError, TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.servers import admin, leases
from pytest_chatdify_db.servers.base import Server
from pytest_chatdify_db.servers.run import Run
from pytest_chatdify_db.servers.supervisor import KEPT

#: How many one process keeps: those of the tests that fail first.
MOST: Final = 5
_MOST_MISSING: Final = 5


class Keeping:
    """What one process keeps.

    Args:
        server: Where.
        template: What the tests' databases are clones of.
        sandbox: Where clients of the sandbox connect to.
        run: The run.
        worker: The name of the process in the run.
    """

    def __init__(self, server: Server, template: str, sandbox: Address, run: Run, worker: str) -> None:
        self._server = server
        self._template = template
        self._sandbox = sandbox
        self._run = run
        self._worker = worker
        self._numbers = count(1)
        self._kept: dict[str, Address] = {}
        self._own: dict[Address, str] = {}

    def keep(self, test: str, own: Address | None) -> str:
        """Keep the database of the running *test*; return what its report says about it.

        Args:
            test: The test's id.
            own: Its own database; None if it works in the sandbox.
        """
        if test in self._kept:
            return ""
        if len(self._kept) >= MOST:
            return f"not kept: {MOST} are kept already"
        name = naming.failed_name(self._run.id, self._worker, str(next(self._numbers)))
        address = self._server.address.with_database(name)
        try:
            missing = self._copy(address) if own is None else ()
            self._last()
        except ChatdifyDBError as error:
            return str(error)
        self._kept[test] = address
        if own is not None:
            self._own[own] = name
        return "\n".join(self._lines(address, missing, is_own=own is not None))

    def takes(self, own: Address) -> bool:
        """Give the test's own database, which nobody uses any more, its lasting name; return whether it is kept."""
        name = self._own.pop(own, None)
        if name is None:
            return False
        with self._administration(name) as connection:
            admin.await_quiet(connection, own.database, terminate=True)
            admin.rename_database(connection, own.database, name)
            if not self._server.is_managed:
                leases.touch(connection, name, {})
        return True

    @property
    def summary(self) -> str:
        """The line for the end of the run; empty if nothing is kept."""
        if not self._kept:
            return ""
        number = "1 database" if len(self._kept) == 1 else f"{len(self._kept)} databases"
        # The workers' lines are put together, and two that are equal would be one.
        whose = "" if self._worker == "main" else f" ({self._worker})"
        return f"chatdify-db: {number} of failed tests kept{whose}; {self._end}"

    @property
    def _end(self) -> str:
        if self._server.is_managed:
            return f"removed an hour after the run, or at once by: rm {self._run.directory / KEPT}"
        return "dropped by the first run that begins more than a day later"

    def _copy(self, address: Address) -> tuple[str, ...]:
        templates.clone(self._server, self._template, address.database)
        try:
            missing = copies.copy_rows(self._sandbox, address).missing
        except ChatdifyDBError:
            templates.drop(self._server, address.database)
            raise
        if not self._server.is_managed:
            with self._administration(address.database) as connection:
                leases.touch(connection, address.database, {})
        return missing

    @contextmanager
    def _administration(self, name: str) -> Iterator[Connection]:
        try:
            with connect(self._server.address) as connection:
                yield connection
        except (ConnectError, ServerError) as error:
            raise TemplateFailed.refused(name, str(self._server.address), str(error)) from None

    def _last(self) -> None:
        """Have a server that ends with the run last longer."""
        if self._server.is_managed:
            self._run.write(KEPT, "While this file exists the server goes on, an hour at most.\n")

    def _lines(self, address: Address, missing: tuple[str, ...], *, is_own: bool) -> list[str]:
        # The directory of the run ends with it, unless a server of the plugin's goes on.
        passfile = psql.write_passfile(self._run, "server.pgpass", address) if self._server.is_managed else None
        what = "its own, as it was left" if is_own else "the rows as they were when it failed, also the uncommitted"
        lines = [f"kept ({what}); open it with:", f"  {psql.command(address, passfile)}", f"It is {self._end}"]
        if missing:
            more = [f"and {len(missing) - _MOST_MISSING} more"] if len(missing) > _MOST_MISSING else []
            lines.append(f"Changes of the schema are not in it: {', '.join([*missing[:_MOST_MISSING], *more])}")
        return lines
