"""The tests' database from its start to its end: what `Provisioning` provides, the sandbox on it, the watch over both.

Everything is started once, when the first test needs it, in the order in which each part needs the one before. What was
started is ended in reverse order. This module knows neither fixtures nor hooks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_chatdify_db import application
from pytest_chatdify_db.errors import ChatdifyDBError
from pytest_chatdify_db.provisioning import ProgressCallback, Provisioning, Schema
from pytest_chatdify_db.redirect import Redirect
from pytest_chatdify_db.running import Running, Turn, sandbox_failures
from pytest_chatdify_db.scopes import Frame, FrameStack
from pytest_chatdify_db.settings import Options

if TYPE_CHECKING:
    from pytest_chatdify_db.databases.keeping import Keeping
    from pytest_chatdify_db.postgres.address import Address
    from pytest_chatdify_db.sandbox.handle import Sandbox
    from pytest_chatdify_db.servers.base import Server
    from pytest_chatdify_db.tracing.checkouts import Checkouts
    from pytest_chatdify_db.tracing.transcript import Transcript
    from pytest_chatdify_db.tracing.watcher import Watcher


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
        provisioning: The server and the databases.
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
        self.worker = worker
        self.transcript: Transcript | None = None
        self.watcher: Watcher | None = None
        self.keeping: Keeping | None = None
        self.say: Callable[[str], None] = lambda _: None
        self.running: Running | None = None
        self._sandbox: Sandbox | None = None
        self._speaks = False
        self._resources = ExitStack()
        self.provisioning = Provisioning(
            options,
            self._resources,
            root=self.root,
            project=project or self.root,
            worker=worker,
            run_directory=run_directory,
        )

    @property
    def turn(self) -> Turn | None:
        """The turn of the running test, if it has one."""
        return self.running.turn if self.running is not None else None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules after whose import a test may use the database without saying so."""
        return ("app.db", *(path.partition(":")[0] for path in self.options.metadata))

    def speak_for_all(self, text: str) -> None:
        """Show *text* on the terminal, if this is the first process of the run to have something to say there."""
        with suppress(OSError):
            self._speaks = self._speaks or self.provisioning.run.claim("voice")
        if self._speaks:
            self.say(text)

    def start(self, server: Server, schema: Schema, progress: ProgressCallback) -> Running:
        """Prepare the worker's database on *server* and start the sandbox on it."""
        from pytest_chatdify_db.databases.own_databases import OwnDatabases

        application.check(self.redirect)  # again: loading the tables has imported modules of the project
        address, provisioning = self.redirect.address, self.provisioning
        template, database = provisioning.database(server, schema, progress)
        sandbox = self._serve(database)
        transcript, watcher, checkouts = self._begin_transcript(sandbox)
        own_databases = OwnDatabases(server, template, address, provisioning.new_name)
        self._resources.callback(own_databases.close)
        self.keeping = self._new_keeping(server, template)
        self.running = Running(
            server=server,
            template=template,
            sandbox=sandbox,
            address=address,
            run=provisioning.run,
            worker=self.worker,
            options=self.options,
            new_name=provisioning.new_name,
            own_databases=own_databases,
            checkouts=checkouts,
            transcript=transcript,
            watcher=watcher,
            keeping=self.keeping,
            frames=FrameStack(sandbox),
        )
        return self.running

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
        self._resources.callback(unix_socket.lead_engines(address, self.provisioning.run.directory))
        self._resources.callback(application.dispose_engines)
        return sandbox

    def _new_keeping(self, server: Server, template: str) -> Keeping | None:
        if self.options.keep != "failed":
            return None
        from pytest_chatdify_db.databases.keeping import Keeping

        return Keeping(server, template, self.redirect.address, self.provisioning.run, self.worker)

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

        directory, port = self.provisioning.run.directory, self.redirect.address.port
        with sandbox_failures(), unix_socket.bound(directory, port) as nearby:
            self._resources.callback(unix_socket.remove, directory, port)
            self._sandbox = Sandbox.spawn(self.redirect.listener, *nearby)
        self._resources.callback(self._sandbox.stop)
        return self._sandbox

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


def first_line(error: ChatdifyDBError) -> str:
    """Return what failed, without cause and ways out: for the tests after the first one."""
    return str(error).partition("\n")[0]
