"""The sockets of the sandbox: one thread, one selector, no decision that is not about bytes.

The rule: the host reads what has come, tells the core, lets it run, and writes what it left. It ends when the test run
closes the control connection, or dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import ConnectError, Connection, ServerError, cancel, connect
from pytest_chatdify_db.sandbox import waits
from pytest_chatdify_db.sandbox.client import Client, Stage
from pytest_chatdify_db.sandbox.core import Core, Identity, Job, Unavailable
from pytest_chatdify_db.sandbox.direct import DirectSession
from pytest_chatdify_db.sandbox.session import Broken

_CHUNK: Final = 1 << 18
#: Seconds between two looks whether the test run is still alive; its end normally shows on the control connection.
_HEARTBEAT: Final = 1.0
#: Seconds that the end of a test waits for a statement that still runs, before it has the server cancel it.
_PATIENCE: Final = 2.0


@dataclass(eq=False, slots=True)
class Peer:
    """A socket, what is to be written to it, and who takes what is read from it."""

    sock: socket.socket
    out: bytearray
    received: Callable[[bytes], None]
    ended: Callable[[], None]
    waits_to_write: bool = False


@dataclass(slots=True)
class Own:
    """A client's own session: where it is and how to cancel it."""

    peer: Peer
    address: Address
    pid: int
    key: bytes


class Host:
    """The sandbox with its sockets.

    Args:
        listener: Where clients connect; bound, and listening from now on.
        control: The connection to the test run.
        server: The server and database behind the sandbox.
        identity: Who may connect.
    """

    def __init__(self, listener: socket.socket, control: socket.socket, server: Address, identity: Identity) -> None:
        self._server = server
        self._own_database: Address | None = None
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, tuple[Client, Peer]] = {}
        self._own: dict[int, Own] = {}
        self._monitor: Connection | None = None
        self._listener = listener
        self._control = Peer(control, bytearray(), self._control_received, self._stop)
        self._commands = bytearray()
        self._is_running = True
        self._asked_at = 0.0
        self._parent = os.getppid()
        self._backend, reported = self._connect()
        self._core = Core(identity, self, reported)
        self._shared = self._watch_backend()
        self._watch(self._control)
        listener.listen(512)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._answer({"ready": True})
        self._write(self._control)

    def refuse_dirty_reads(self, refuse: bool) -> None:
        """Say whether a dirty read is an error for who reads."""
        self._core.session.refuses_dirty_reads = refuse

    # -- The loop

    def run(self) -> None:
        """Serve until the test run ends."""
        while self._is_running:
            events = self._selector.select(_HEARTBEAT)
            if not events and os.getppid() != self._parent:
                return
            for key, mask in events:
                peer: Peer | None = key.data
                if peer is None:
                    self._accept()
                    continue
                if mask & selectors.EVENT_READ:
                    self._read(peer)
                if mask & selectors.EVENT_WRITE:
                    self._write(peer)
            self._core.run()
            self._cancel_overdue()
            self._write_all()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = self._core.connected()
            peer = Peer(
                sock,
                client.out,
                lambda data: self._core.received(client, data),
                lambda: self._client_ended(client),
            )
            self._clients[client.number] = client, peer
            self._watch(peer)

    def _watch(self, peer: Peer) -> None:
        peer.sock.setblocking(False)
        self._selector.register(peer.sock, selectors.EVENT_READ, peer)

    def _unwatch(self, peer: Peer) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(peer.sock)
        peer.sock.close()

    def _read(self, peer: Peer) -> None:
        while True:
            try:
                data = peer.sock.recv(_CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if _wants_more(error):
                    return
                data = b""
            if not data:
                peer.ended()
                return
            peer.received(data)
            if not hasattr(peer.sock, "pending"):  # TLS may hold more than the selector knows of
                return

    def _write(self, peer: Peer) -> None:
        out = peer.out
        while out:
            try:
                sent = peer.sock.send(out)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if _wants_more(error):
                    break
                out.clear()
                return  # its end will be read
            del out[:sent]
        if bool(out) != peer.waits_to_write:
            peer.waits_to_write = bool(out)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if out else 0)
            with contextlib.suppress(KeyError, ValueError):
                self._selector.modify(peer.sock, events, peer)

    def _write_all(self) -> None:
        if self._shared.out:
            self._write(self._shared)
        for own in self._own.values():
            if own.peer.out:
                self._write(own.peer)
        for client, peer in list(self._clients.values()):
            if peer.out:
                self._write(peer)
            if client.stage is Stage.ENDED and not peer.out:
                self._client_ended(client)
        if self._control.out:
            self._write(self._control)

    def _client_ended(self, client: Client) -> None:
        _, peer = self._clients.pop(client.number, (client, None))
        if peer is not None:
            self._unwatch(peer)
            self._core.closed(client)
            self._core.run()

    # -- The server

    def _connect(self) -> tuple[tuple[socket.socket, bytes, int, bytes], dict[str, str]]:
        connection = connect(self._server, application_name="")
        unread, pid, key = bytes(connection.unread), connection.pid, connection.key
        return (connection.detach(), unread, pid, key), dict(connection.parameters)

    def _watch_backend(self) -> Peer:
        sock, unread, _, _ = self._backend
        peer = Peer(sock, self._core.backend.out, self._heard, self._server_ended)
        self._watch(peer)
        if unread:
            self._core.heard(unread)
        return peer

    def _heard(self, data: bytes) -> None:
        self._core.heard(data)
        self._core.run()

    def _server_ended(self) -> None:
        self._unwatch(self._shared)
        self._shared.out.clear()
        fatal = self._core.backend.fatal_text
        self._core.break_down(fatal or "the server closed the connection without a word")

    def _renew(self) -> None:
        """Open another session on the server in place of one that broke."""
        self._unwatch(self._shared)
        self._backend, reported = self._connect()
        self._core.renew(reported)
        self._shared = self._watch_backend()

    # -- What the core needs

    def random(self, length: int) -> bytes:
        """Return random bytes."""
        return os.urandom(length)

    def cancel(self, client: Client) -> None:
        """Ask the server to cancel what it does for *client*."""
        own = self._own.get(client.number)
        address, pid, key = (own.address, own.pid, own.key) if own else (self._server, *self._backend[2:])
        with contextlib.suppress(ConnectError):
            cancel(address, pid, key)

    def open_direct(self, client: Client) -> DirectSession:
        """Open a session of the client's own on the test's database."""
        address = self._own_database
        if address is None:
            raise Unavailable("the test has no database of its own")
        try:
            connection = connect(address, application_name="")
        except (ConnectError, ServerError) as error:
            raise Unavailable(str(error)) from error
        direct = DirectSession(client, connection.parameters, self._core.session.catalog.writing)
        peer = Peer(
            connection.detach(),
            direct.out,
            direct.receive,
            lambda: self._direct_ended(client),
        )
        self._own[client.number] = Own(peer, address, connection.pid, connection.key)
        self._watch(peer)
        return direct

    def close_direct(self, client: Client) -> None:
        """Close it."""
        own = self._own.pop(client.number, None)
        if own is not None:
            self._write(own.peer)
            self._unwatch(own.peer)

    def _direct_ended(self, client: Client) -> None:
        self.close_direct(client)
        client.stage = Stage.ENDED

    def _cancel_overdue(self) -> None:
        client = self._core.delays_the_test_run
        if client is None:
            self._asked_at = 0.0
        elif not self._asked_at:
            self._asked_at = time.monotonic()
        elif time.monotonic() - self._asked_at > _PATIENCE:
            self._asked_at = 0.0
            self.cancel(client)

    # -- The test run

    def _stop(self) -> None:
        self._is_running = False

    def _control_received(self, data: bytes) -> None:
        self._commands += data
        while b"\n" in self._commands:
            line, _, rest = self._commands.partition(b"\n")
            self._commands = bytearray(rest)
            self._obey(json.loads(line))

    def _obey(self, command: dict[str, Any]) -> None:
        core, name = self._core, command["do"]
        if name == "waits":
            self._answer(self._waits())
            return
        if name == "end_wait":
            self._answer(self._end_wait(command["client"], command["explanation"]))
            return
        if core.broken and name in {"push", "pop"}:
            reason = core.broken
            try:
                self._renew()
            except (ConnectError, ServerError) as error:
                self._answer({"error": f"{reason}; and no new session can be had: {error}"})
                return
            if name == "pop":
                core.after_loss = reason
        job: Callable[[], Job]
        if name == "push":
            job = lambda: core.push(command["name"])  # noqa: E731  a job is what the queue holds
        elif name == "pop":
            job = core.pop
        elif name == "wrote":
            job = core.wrote
        elif name == "enter":
            self._own_database = Address.from_fields(command["address"])
            job = core.enter_direct
        else:
            job = lambda: core.leave_direct(command["name"])  # noqa: E731
        core.ask(job, self._answer)
        core.run()

    def _waits(self) -> dict[str, Any]:
        """Tell who waits for whom, whatever the shared session does meanwhile."""
        clients = {own.pid: number for number, own in self._own.items()}
        if self._core.served is not None:
            clients[self._backend[2]] = self._core.served.number
        try:
            if self._monitor is None or self._monitor.is_closed:
                self._monitor = connect(self._server, application_name="chatdify-db monitor")
            return {"waits": [asdict(wait) for wait in waits.find(self._monitor, clients, self._core.have_timeouts)]}
        except (ConnectError, ServerError) as error:
            return {"error": str(error)}

    def _end_wait(self, number: int, explanation: str) -> dict[str, Any]:
        client = self._core.find(number)
        if client is not None:
            client.explanation = explanation
            self.cancel(client)
        return {}

    def _answer(self, result: Any) -> None:
        if isinstance(result, Broken):
            result = {"error": str(result)}
        self._control.out += json.dumps(result).encode() + b"\n"


def _wants_more(error: OSError) -> bool:
    """Return whether TLS only waits for the socket."""
    return type(error).__name__ in {"SSLWantReadError", "SSLWantWriteError"}
