"""What the tests are run on: the server, the template database with the schema and the seed, the process's copy of it.

The rule: each part is made once, when it is first asked for, after the one that it needs. A server of this machine may
be begun ahead, beside the loading of the project's tables; whoever asks for the server then gets that one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_chatdify_db.mistakes.schema import SchemaError
from pytest_chatdify_db.settings import Options

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from pytest_chatdify_db.contents.schema import Seed
    from pytest_chatdify_db.databases.templates import Recipe
    from pytest_chatdify_db.postgres.address import Address
    from pytest_chatdify_db.postgres.connection import Connection
    from pytest_chatdify_db.servers.base import Server
    from pytest_chatdify_db.servers.run import Run
    from pytest_chatdify_db.startup import Copied, ServerStart

ProgressCallback = Callable[[str], None]

_FOREIGN_SERVER: Final = "foreign-server.json"


@dataclass(frozen=True, slots=True)
class Schema:
    """What the tests' databases hold before the tests.

    Args:
        metadatas: Whose tables are created.
        seed: Stores rows in the tables; None for none.
    """

    metadatas: Sequence[MetaData]
    seed: Seed | None = None


class Provisioning:
    """The server of the run, and the databases on it that this process needs.

    Args:
        options: What was asked for.
        resources: Takes what has to be ended.
        root: The directory to which the paths of the command line are relative.
        project: The one to which those in the ini file and the environment are relative.
        worker: The name of the process: xdist's worker id, or ``main``.
        run_directory: The directory of the run that another process made; None to make one when it is needed.
    """

    def __init__(
        self,
        options: Options,
        resources: ExitStack,
        *,
        root: Path,
        project: Path,
        worker: str,
        run_directory: str | None,
    ) -> None:
        self.options = options
        self.root = root
        self.project = project
        self.worker = worker
        self._run_directory = run_directory
        self._run: Run | None = None
        self._clones = count(1)
        self._recipe: Recipe | None = None
        self._begun: ServerStart | None = None
        self._copied: Copied | None = None
        self._resources = resources

    @property
    def run(self) -> Run:
        """The run, made or attached to when first asked for."""
        if self._run is None:
            from pytest_chatdify_db.servers.run import Run

            directory = self._run_directory
            self._run = Run.create() if directory is None else Run.attach(directory)
            self._resources.callback(self._run.close)
            if self._run.is_owner:
                self._resources.callback(_drop_databases, self._run)
        return self._run

    @property
    def migrations(self) -> Path | None:
        """The ``alembic.ini`` that the schema comes from; None if it comes from the metadata."""
        if self.options.migrations is None:
            return None
        is_typed = self.options.source("migrations") == "command line"
        return (self.root if is_typed else self.project) / self.options.migrations

    def start_server(self, progress: ProgressCallback, choice: str | None = None) -> Server:
        """Start, or attach to, the server of the run.

        Args:
            progress: Takes the steps.
            choice: What the option ``server`` may be; default is what it is.
        """
        from pytest_chatdify_db import servers

        begun, self._begun = self._begun, None
        if begun is not None:
            if choice is None:
                _load_course()  # while the server starts
                server = begun.result()
                self._copied = begun.copied
                return server
            begun.abandon()
        needed = self._kept_fingerprint()
        wish = servers.Wish(needed, lambda: needed, stays=self.options.reuse == "always")
        choice = choice or self.options.server
        return servers.start(choice, image=self.options.image, run=self.run, progress=progress, template=wish)

    def begin_server(self, progress: ProgressCallback) -> None:
        """Have the server started while the schema is loaded, if this takes no more than programs of this machine."""
        from pytest_chatdify_db import naming, servers
        from pytest_chatdify_db.databases import templates
        from pytest_chatdify_db.servers import archives
        from pytest_chatdify_db.startup import Copied, ServerStart

        run, options = self.run, self.options
        if not servers.is_quick(options.server):
            return

        def start(wish: servers.Wish) -> Server:
            return servers.start(options.server, image=options.image, run=run, progress=progress, template=wish)

        def copy(server: servers.Server, fingerprint: str) -> Copied | None:
            if not fingerprint or not server.is_managed:
                return None
            found = templates.copy_managed(server, fingerprint, naming.worker_name(run.id, self.worker), run)
            return None if found is None else Copied(*found)

        self._begun = begun = ServerStart(start, archives.last_template(self.root), copy)
        self._resources.callback(begun.abandon)

    def _kept_fingerprint(self) -> str:
        """Return what stands for the template that is needed; empty if none may be kept."""
        return self._recipe.fingerprint if self._recipe is not None and self._may_keep(self._recipe) else ""

    def _may_keep(self, recipe: Recipe) -> bool:
        return self.options.reuse != "no" and not recipe.fits_once

    def plan(self, schema: Schema) -> Recipe:
        """Return how the template is made; known before the server starts, an embedded one may bring it along."""
        if self._recipe is None:
            if self.migrations is not None:
                from pytest_chatdify_db.contents import migrations

                self._recipe = migrations.recipe(self.migrations, schema.seed, unknown=self.run.id)
            else:
                from pytest_chatdify_db.contents import schema as tables

                self._recipe = tables.recipe(schema.metadatas, schema.seed, unknown=self.run.id)
            self._settle()
        return self._recipe

    def _settle(self) -> None:
        """Tell a start that goes on which template is needed, and the next run too."""
        from pytest_chatdify_db.servers import archives

        needed = self._kept_fingerprint()
        if self._begun is not None:
            self._begun.settle(needed)
        if self.options.reuse != "no" and needed != archives.last_template(self.root):
            archives.remember_template(self.root, needed)

    def database(self, server: Server, schema: Schema, progress: ProgressCallback) -> tuple[str, Address]:
        """Make the worker's database; return the template's name, and where the copy of it is."""
        from pytest_chatdify_db import naming
        from pytest_chatdify_db.databases import templates

        if not server.is_managed:
            # It outlives the run: the process that owns the run drops all that the run made on it, and nothing else.
            self.run.write(_FOREIGN_SERVER, server.to_json())
        if self._copied is not None:
            return self._copied.template, self._copied.database
        recipe = self.plan(schema)
        lease = self._open_lease(server, recipe)
        template = templates.ensure(server, recipe, run=self.run, progress=progress, lease=lease)
        return template, templates.clone(server, template, naming.worker_name(self.run.id, self.worker))

    def _open_lease(self, server: Server, recipe: Recipe) -> Connection | None:
        """Claim what the run makes on a server that outlives it; return the claim if the template may as well."""
        from pytest_chatdify_db.databases import templates

        if server.is_managed:
            return None
        lease = templates.open_lease(server, self.run)
        self._resources.callback(lease.close)
        return lease if self._may_keep(recipe) else None

    def new_name(self) -> str:
        """Return a name for another database of this process."""
        from pytest_chatdify_db import naming

        return naming.worker_name(self.run.id, self.worker, str(next(self._clones)))

    def check_migrations(self, server: Server, template: str, config: Path) -> None:
        """Compare what the migrations of *config* make with the models.

        Args:
            server: Where to make a database of them.
            template: The template database there, from which that is copied if they have made it.
            config: The ``alembic.ini``.

        Raises:
            SchemaError: They differ, or cannot be compared.
        """
        from pytest_chatdify_db.contents import migrations
        from pytest_chatdify_db.databases import templates

        migrations.require(config)
        name = self.new_name()
        is_built = config == self.migrations
        address = templates.clone(server, template if is_built else "template0", name)
        try:
            if not is_built:
                migrations.upgrade(address, config)
            difference = migrations.difference(address, config)
        finally:
            templates.drop(server, name)
        if difference:
            raise SchemaError.migrations_differ(difference)


def _load_course() -> None:
    """Import what the first test is going to need of the plugin."""
    tracing = (f"tracing.{name}" for name in ("checkouts", "findings", "transcript", "watcher"))
    for name in ("databases.own_databases", *tracing):
        import_module(f"pytest_chatdify_db.{name}")


def _drop_databases(run: Run) -> None:
    """Drop the databases that the run made on a server that the plugin did not start."""
    from pytest_chatdify_db.databases import templates
    from pytest_chatdify_db.servers.base import Server

    with suppress(FileNotFoundError):
        templates.drop_all(Server.from_json((run.directory / _FOREIGN_SERVER).read_text()), run)
