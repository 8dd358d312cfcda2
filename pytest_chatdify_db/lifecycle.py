"""The tests' database from its start to its end: server, template, the worker's database, sandbox.

Everything is started once, when the first test needs it, in the order in which each part needs the one before. What was
started is ended in reverse order. This module knows neither fixtures nor hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_chatdify_db import application
from pytest_chatdify_db.errors import ChatdifyDBError
from pytest_chatdify_db.mistakes.schema import SchemaError
from pytest_chatdify_db.redirect import Redirect
from pytest_chatdify_db.running import Running, Turn, sandbox_failures
from pytest_chatdify_db.scopes import Frame, FrameStack
from pytest_chatdify_db.settings import Options

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from pytest_chatdify_db.contents.schema import Seed
    from pytest_chatdify_db.databases.keeping import Keeping
    from pytest_chatdify_db.databases.templates import Recipe
    from pytest_chatdify_db.postgres.address import Address
    from pytest_chatdify_db.postgres.connection import Connection
    from pytest_chatdify_db.sandbox.handle import Sandbox
    from pytest_chatdify_db.servers.base import Server
    from pytest_chatdify_db.servers.run import Run
    from pytest_chatdify_db.startup import Copied, ServerStart
    from pytest_chatdify_db.tracing.checkouts import Checkouts
    from pytest_chatdify_db.tracing.transcript import Transcript
    from pytest_chatdify_db.tracing.watcher import Watcher

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


class Lifecycle:
    """The tests' database of one pytest process.

    Args:
        options: What was asked for.
        redirect: The environment that names the sandbox.
        root: The directory to which the paths of the project's lines are relative, and those of the command line.
        project: The directory to which the paths in the ini file and the environment are relative; default: *root*.
        worker: The name of the process: xdist's worker id, or ``main``.
        run_directory: The directory of the run that another process made; None to make one when it is needed.

    Attributes:
        say: Shows a text on the terminal while a test runs; may be replaced before `start`.
    """

    def __init__(
        self,
        options: Options,
        redirect: Redirect,
        *,
        root: Path | None = None,
        project: Path | None = None,
        worker: str = "main",
        run_directory: str | None = None,
    ) -> None:
        self.options = options
        self.redirect = redirect
        self.root = root or Path.cwd()
        self.project = project or self.root
        self.worker = worker
        self.transcript: Transcript | None = None
        self.watcher: Watcher | None = None
        self.keeping: Keeping | None = None
        self.say: Callable[[str], None] = lambda _: None
        self.running: Running | None = None
        self._run_directory = run_directory
        self._run: Run | None = None
        self._clones = count(1)
        self._sandbox: Sandbox | None = None
        self._recipe: Recipe | None = None
        self._begun: ServerStart | None = None
        self._copied: Copied | None = None
        self._speaks = False
        self._resources = ExitStack()

    @property
    def turn(self) -> Turn | None:
        """The turn of the running test, if it has one."""
        return self.running.turn if self.running is not None else None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules after whose import a test may use the database without saying so."""
        return ("app.db", *(path.partition(":")[0] for path in self.options.metadata))

    @property
    def migrations(self) -> Path | None:
        """The ``alembic.ini`` that the schema comes from; None if it comes from the metadata."""
        if self.options.migrations is None:
            return None
        is_typed = self.options.source("migrations") == "command line"
        return (self.root if is_typed else self.project) / self.options.migrations

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

    def speak_for_all(self, text: str) -> None:
        """Show *text* on the terminal, if this is the first process of the run to have something to say there."""
        with suppress(OSError):
            self._speaks = self._speaks or self.run.claim("voice")
        if self._speaks:
            self.say(text)

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

    def check_migrations(self, config: Path) -> None:
        """Compare what the migrations of *config* make with the models.

        Raises:
            SchemaError: They differ, or cannot be compared.
        """
        from pytest_chatdify_db.contents import migrations
        from pytest_chatdify_db.databases import templates

        migrations.require(config)
        assert self.running is not None
        server, name = self.running.server, self._new_clone_name()
        is_built = config == self.migrations
        address = templates.clone(server, self.running.template if is_built else "template0", name)
        try:
            if not is_built:
                migrations.upgrade(address, config)
            difference = migrations.difference(address, config)
        finally:
            templates.drop(server, name)
        if difference:
            raise SchemaError.migrations_differ(difference)

    def _open_lease(self, server: Server, recipe: Recipe) -> Connection | None:
        """Claim what the run makes on a server that outlives it; return the claim if the template may as well."""
        from pytest_chatdify_db.databases import templates

        if server.is_managed:
            return None
        lease = templates.open_lease(server, self.run)
        self._resources.callback(lease.close)
        return lease if self._may_keep(recipe) else None

    def start(self, server: Server, schema: Schema, progress: ProgressCallback) -> Running:
        """Prepare the worker's database on *server* and start the sandbox on it."""
        from pytest_chatdify_db.databases.own_databases import OwnDatabases

        application.check(self.redirect)  # again: loading the tables has imported modules of the project
        address = self.redirect.address
        template, database = self._prepare_database(server, schema, progress)
        sandbox = self._serve(database)
        transcript, watcher, checkouts = self._begin_transcript(sandbox)
        own_databases = OwnDatabases(server, template, address, self._new_clone_name)
        self._resources.callback(own_databases.close)
        self.keeping = self._new_keeping(server, template)
        self.running = Running(
            server=server,
            template=template,
            sandbox=sandbox,
            address=address,
            run=self.run,
            worker=self.worker,
            options=self.options,
            new_name=self._new_clone_name,
            own_databases=own_databases,
            checkouts=checkouts,
            transcript=transcript,
            watcher=watcher,
            keeping=self.keeping,
            frames=FrameStack(sandbox),
        )
        return self.running

    def _prepare_database(self, server: Server, schema: Schema, progress: ProgressCallback) -> tuple[str, Address]:
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

    def _serve(self, database: Address) -> Sandbox:
        """Have the sandbox serve *database*, and lead the application's engines to it."""
        from pytest_chatdify_db import unix_socket

        address = self.redirect.address
        sandbox = self._sandbox or self.spawn_sandbox()
        with sandbox_failures():
            sandbox.serve(
                database,
                user=address.user,
                password=address.password or "",
                database=address.database,
                refuse_dirty_reads=self.options.dirty_reads == "error",
            )
        self._resources.callback(unix_socket.lead_engines(address, self.run.directory))
        self._resources.callback(application.dispose_engines)
        return sandbox

    def _new_keeping(self, server: Server, template: str) -> Keeping | None:
        if self.options.keep != "failed":
            return None
        from pytest_chatdify_db.databases.keeping import Keeping

        return Keeping(server, template, self.redirect.address, self.run, self.worker)

    def _begin_transcript(self, sandbox: Sandbox) -> tuple[Transcript, Watcher, Checkouts]:
        from pytest_chatdify_db.tracing.checkouts import Checkouts
        from pytest_chatdify_db.tracing.transcript import Transcript
        from pytest_chatdify_db.tracing.watcher import Watcher

        self.transcript = transcript = Transcript(self.root)
        if self.options.dirty_reads == "error":
            transcript.claim = sandbox.own  # the sandbox itself has to tell the test's sessions from others
        transcript.install()
        self._resources.callback(transcript.close)
        self.watcher = watcher = Watcher(sandbox, transcript, self.say)
        self._resources.callback(watcher.close)
        checkouts = Checkouts(self.transcript.callers)
        checkouts.install()
        self._resources.callback(checkouts.close)
        return transcript, watcher, checkouts

    def spawn_sandbox(self) -> Sandbox:
        """Start the sandbox's process, which gets ready while the server does."""
        from pytest_chatdify_db import unix_socket
        from pytest_chatdify_db.sandbox.handle import Sandbox

        directory, port = self.run.directory, self.redirect.address.port
        with sandbox_failures(), unix_socket.bound(directory, port) as nearby:
            self._resources.callback(unix_socket.remove, directory, port)
            self._sandbox = Sandbox.spawn(self.redirect.listener, *nearby)
        self._resources.callback(self._sandbox.stop)
        return self._sandbox

    def _new_clone_name(self) -> str:
        from pytest_chatdify_db import naming

        return naming.worker_name(self.run.id, self.worker, str(next(self._clones)))

    def push_frame(self, frame: Frame) -> None:
        """Open *frame*, unless the database has ended."""
        if self.running is not None:
            self.running.frames.push(frame)

    def close_frame(self, frame: Frame) -> None:
        """Undo *frame* if it is open, unless the database has ended."""
        if self.running is not None:
            with sandbox_failures():
                self.running.frames.close(frame)

    def close(self) -> None:
        """End everything that was started, last first. May be called twice."""
        self.running = None
        self._resources.close()


def _load_course() -> None:
    """Import what the first test is going to need of the plugin."""
    tracing = (f"tracing.{name}" for name in ("checkouts", "findings", "transcript", "watcher"))
    for name in ("databases.own_databases", *tracing):
        import_module(f"pytest_chatdify_db.{name}")


def first_line(error: ChatdifyDBError) -> str:
    """Return what failed, without cause and ways out: for the tests after the first one."""
    return str(error).partition("\n")[0]


def _drop_databases(run: Run) -> None:
    """Drop the databases that the run made on a server that the plugin did not start."""
    from pytest_chatdify_db.databases import templates
    from pytest_chatdify_db.servers.base import Server

    with suppress(FileNotFoundError):
        templates.drop_all(Server.from_json((run.directory / _FOREIGN_SERVER).read_text()), run)
