"""What a test run holds of the sandbox: it starts the process, tells it where tests begin and end, and ends it.

What follows a call is on the right side of it: the sandbox hears its commands before what clients say afterwards.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.sandbox import dialogue
from pytest_chatdify_db.sandbox.dialogue import Said
from pytest_chatdify_db.sandbox.flag import Flag
from pytest_chatdify_db.sandbox.reports import DirtyRead, Executed, Leftover
from pytest_chatdify_db.sandbox.waits import Wait

#: Seconds that an answer may take. The sandbox itself has a statement cancelled that runs on after its test.
_PATIENCE: Final = 60.0

#: ``-I -S``: neither the environment nor installed packages change what the process imports, and it starts fast. It
#: ends at once, too: an interpreter takes 20 ms to clear away what the kernel drops with the process.
_CODE: Final = (
    "import os, sys; sys.path.append(sys.argv[1]);"
    " from pytest_chatdify_db.sandbox.__main__ import main; os._exit(main(*map(int, sys.argv[2:])))"
)


class SandboxError(Exception):
    """The sandbox cannot do what it was asked; the text says why."""


class ServerGone(SandboxError):
    """It cannot since the server has gone."""


@dataclass(frozen=True, slots=True)
class FrameReport:
    """What was found when a frame ended.

    Args:
        wrote: Whether anything was written in it; None if its end was not waited for.
        clients_in_transaction: The connections that were left in a transaction, each described in a line.
        lost: Why its isolation was lost on the way, empty if it was not.
        has_escaped: Whether a statement has ended the transaction; else the server has ended its session.
        dirty_reads: What connections of the application have read before another one committed it.
        leftovers: What connections keep that no transaction ends: LISTEN, advisory locks, temporary tables.
    """

    wrote: bool | None
    clients_in_transaction: tuple[str, ...] = ()
    lost: str = ""
    has_escaped: bool = False
    dirty_reads: tuple[DirtyRead, ...] = ()
    leftovers: tuple[Leftover, ...] = ()


class Sandbox:
    """A running sandbox. Made by ``start``."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        notes: socket.socket,
        is_clean: Flag,
        log: IO[bytes],
    ) -> None:
        self._process = process
        self._control = control
        self._notes = notes
        self._is_clean = is_clean
        self._answers = control.makefile("rb")
        self._log = log
        self._lock = threading.RLock()
        self._last_number = 0
        self._owner = os.getpid()
        # A child that outlives the run must not keep it alive: the sandbox ends when the last copy is closed.
        os.register_at_fork(after_in_child=self._forget)

    @classmethod
    def spawn(cls, *listeners: socket.socket) -> Self:
        """Start the process, which waits for ``serve``: meanwhile a server can be made ready for it.

        Args:
            listeners: Where clients connect, bound but not listening: until ``serve`` whoever connects is refused.

        Raises:
            SandboxError: The process cannot be started.
        """
        root = str(Path(__file__).resolve().parents[2])
        with ExitStack() as kept, ExitStack() as handed_over:
            try:
                control, its_control = _pair(kept, handed_over)
                notes, its_notes = _pair(kept, handed_over)
                is_clean, its_is_clean = Flag.create()
                kept.callback(is_clean.close)
                handed_over.callback(os.close, its_is_clean)
                log = kept.enter_context(tempfile.TemporaryFile())
                fds = [its_is_clean, *(each.fileno() for each in (its_control, its_notes, *listeners))]
                process = subprocess.Popen(  # noqa: S603 - this interpreter, with code of ours
                    [sys.executable, "-I", "-S", "-c", _CODE, root, *map(str, fds)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=fds,
                    start_new_session=True,
                )
            except OSError as error:
                raise SandboxError(f"the sandbox's process cannot be started: {error}") from error
            kept.pop_all()  # for as long as the process
        control.settimeout(_PATIENCE)
        notes.settimeout(_PATIENCE)
        return cls(process, control, notes, is_clean, log)

    def serve(
        self, server: Address, *, user: str, password: str, database: str, refuse_dirty_reads: bool = False
    ) -> None:
        """Have clients connect, and wait until they can.

        Args:
            server: The server behind the sandbox and, as its database, the one that all clients work in.
            user: The role that clients log in as.
            password: Its password.
            database: What clients call the database.
            refuse_dirty_reads: Whether a dirty read is an error for the connection that reads. It is reported anyway.

        Raises:
            SandboxError: The process cannot reach the server.
        """
        identity = {"user": user, "password": password, "database": database}
        try:
            self._ask(
                {
                    "server": dataclasses.asdict(server),
                    "identity": identity,
                    "refuse_dirty_reads": refuse_dirty_reads,
                }
            )
        except SandboxError:
            self.stop()
            raise

    @classmethod
    def start(
        cls,
        *,
        listener: socket.socket,
        server: Address,
        user: str,
        password: str,
        database: str,
        refuse_dirty_reads: bool = False,
    ) -> Self:
        """Do what ``spawn`` and ``serve`` do."""
        sandbox = cls.spawn(listener)
        sandbox.serve(server, user=user, password=password, database=database, refuse_dirty_reads=refuse_dirty_reads)
        return sandbox

    def push(self, name: str) -> None:
        """Open a frame: all that is written from here on is undone by its ``pop``.

        Args:
            name: What messages call it, such as a test's id.
        """
        # The sandbox reads it before whatever a client says from now on, and answers only if it cannot: that is read
        # before the next answer. The process is not woken, which would take the processor from the test.
        self._say({"do": "push", "name": name, "is_quiet": True}, self._notes)

    def pop(self, *, waits: bool = True) -> FrameReport:
        """Undo all that was written since the matching ``push``.

        Args:
            waits: Whether to wait until it is certain what has to be reported. If not, that is done only where the
                sandbox, when it last answered a client, knew of something.
        """
        if waits or not self._is_clean.is_raised:
            return _report(self._ask({"do": "pop"}))
        self._say({"do": "pop", "is_quiet": True}, self._control)
        return FrameReport(wrote=None)

    def merge(self) -> FrameReport:
        """Close the frame, and have what was begun in it count for the one below. Undone if anything was written."""
        return _report(self._ask({"do": "merge"}))

    def set_aside(self) -> None:
        """Undo what was written since the matching ``push``; transactions go on, and are the frame's again."""
        self._ask({"do": "set_aside"})

    def put_back(self, name: str) -> None:
        """Open the frame again that was set aside last, and is called *name*."""
        self._say({"do": "push", "name": name, "is_back": True, "is_quiet": True}, self._notes)

    @property
    def wrote(self) -> bool:
        """Whether anything has been written since the last ``push``."""
        return bool(self._ask({"do": "wrote"})["wrote"])

    def use_database(self, address: Address | None, name: str = "the test") -> FrameReport:
        """Give each client a session of its own on the database *address*, or with None have all share again.

        A connection moves when it is between transactions.
        """
        if address is None:
            return _report(self._ask({"do": "leave", "name": name}))
        self._ask({"do": "enter", "address": dataclasses.asdict(address)})
        return FrameReport(wrote=False)

    def waits(self) -> list[Wait]:
        """Return which connections wait for a lock, and for whom. May be called while one of them waits."""
        return [Wait(**fields) for fields in self._ask({"do": "waits"})["waits"]]

    def executed(self) -> list[Executed]:
        """Return what connections have executed since the last ``push``, oldest first."""
        return [Executed(**fields) for fields in self._ask({"do": "journal"})["executed"]]

    def end_wait(self, client: int, explanation: str) -> None:
        """End the statement that the connection *client* waits in, as a deadlock is ended.

        Args:
            client: The number of the connection, which drivers know as its process id.
            explanation: Why it would wait for ever; the detail of the error that the client gets.
        """
        self._ask({"do": "end_wait", "client": client, "explanation": explanation})

    def own(self, client: int, *, is_own: bool) -> None:
        """Say whether the connection *client* works for the test itself now: then nothing it does is a dirty read."""
        self._ask({"do": "own", "client": client, "is_own": is_own})

    def stop(self) -> None:
        """End the process; more than once is fine."""
        if os.getpid() != self._owner or self._log.closed:
            return
        self._answers.close()
        self._control.close()
        self._notes.close()
        self._is_clean.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ask(self, command: Said) -> Said:
        with self._lock:
            number = self._say(command, self._control)
            while (answer := self._read()).pop("number", number) != number:
                pass  # of a command before this one that has raised an error where it was read
            return answer

    def _say(self, command: Said, sock: socket.socket) -> int:
        """Send *command* over *sock*; return its answer's number: one may be answered before those sent earlier."""
        with self._lock, self._explained():
            self._last_number += 1
            sock.sendall(dialogue.packed({**command, "number": self._last_number}))
            return self._last_number

    def _read(self) -> Said:
        with self._explained():
            answer = dialogue.read(self._answers)
        if answer is None:
            raise SandboxError(f"the sandbox's process has ended{self._last_words()}")
        if "error" in answer:
            kind = ServerGone if answer.get("is_of_server") else SandboxError
            raise kind(str(answer["error"]))
        return answer

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SandboxError(f"the sandbox does not answer: {error}{self._last_words()}") from error

    def _last_words(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace").strip()
        return f"; its last words:\n{text[-2_000:]}" if text else ""

    def _forget(self) -> None:
        # To close the reader waits for the parent's thread that reads from it, if any, and no child has that thread.
        for sock in (self._control, self._notes):
            if sock.fileno() >= 0:
                os.close(sock.detach())


def _report(answer: Said) -> FrameReport:
    return FrameReport(
        bool(answer["wrote"]),
        tuple(answer["in_transaction"]),
        str(answer["lost"]),
        bool(answer["has_escaped"]),
        tuple(DirtyRead(**fields) for fields in answer["dirty_reads"]),
        tuple(Leftover(**fields) for fields in answer["leftovers"]),
    )


def _pair(kept: ExitStack, handed_over: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Return two sockets that are connected, each to be closed by its stack."""
    ours, its = socket.socketpair()
    return kept.enter_context(ours), handed_over.enter_context(its)
