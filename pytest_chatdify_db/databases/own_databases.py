"""Databases of tests that have one of their own, each with the rows that are there when the test begins.

The rule: a test gets what it would find in the sandbox, committed. Where wider fixtures have rows, these are copied
once into a template of their own, and as long as it is the same fixtures, the tests get clones of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pytest_chatdify_db.databases import templates
from pytest_chatdify_db.databases.spares import Spares
from pytest_chatdify_db.errors import CopyFailed
from pytest_chatdify_db.mistakes.fixtures import FixtureError
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.scopes import Frame
from pytest_chatdify_db.servers.base import Server


class OwnDatabases:
    """The databases of one worker.

    Args:
        server: Where.
        template: The run's template.
        sandbox: Where the rows of fixtures are.
        new_name: Returns a new name for each database.
    """

    def __init__(self, server: Server, template: str, sandbox: Address, new_name: Callable[[], str]) -> None:
        self._server = server
        self._template = template
        self._sandbox = sandbox
        self._new_name = new_name
        self._plain = Spares(server, template, new_name)
        self._fixtures: tuple[Frame, ...] = ()
        self._with_rows: Spares | None = None

    def take(self, test: str, fixtures: Sequence[Frame]) -> Address:
        """Return a database for *test*, to be called while clients share the sandbox.

        Args:
            test: The test's id.
            fixtures: The wider fixtures that have rows.

        Raises:
            TemplateFailed: The server refuses to make one.
            CopyFailed: It refuses the rows.
            FixtureError: The fixtures have changed the schema, which cannot be copied.
        """
        if tuple(fixtures) != self._fixtures:
            self._leave_fixtures()
        if fixtures and self._with_rows is None:
            self._with_rows = Spares(self._server, self._filled(test, fixtures), self._new_name)
            self._fixtures = tuple(fixtures)
        return self._current.take()

    def give_back(self, database: Address, *, changed: bool) -> None:
        """Take the database of the last test back, to be used again unless it was *changed*."""
        self._current.give_back(database, changed=changed)

    def close(self) -> None:
        """End what goes on in the background, and drop the databases where the server outlives the run."""
        self._leave_fixtures()
        self._plain.close()

    @property
    def _current(self) -> Spares:
        return self._with_rows or self._plain

    def _filled(self, test: str, fixtures: Sequence[Frame]) -> str:
        """Return a new template that has the rows of *fixtures*."""
        from pytest_chatdify_db.databases import copies

        address = templates.clone(self._server, self._template, self._new_name())
        missing: Sequence[str] = ()
        try:
            missing = copies.copy_rows(self._sandbox, address).missing
        except CopyFailed:
            self._plain.discard([address.database])
            raise
        if missing:
            self._plain.discard([address.database])
            raise FixtureError.schema_not_copied(test, [str(fixture) for fixture in fixtures], missing)
        return address.database

    def _leave_fixtures(self) -> None:
        if self._with_rows is not None:
            self._plain.discard([*self._with_rows.retire(), self._with_rows.template])
        self._with_rows, self._fixtures = None, ()
