"""A plain, blocking connection to PostgreSQL: log in, run simple queries, or hand the logged-in socket over.

For administration and for the sandbox, so it starts fast and needs no driver: only `socket` is imported at the top.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.auth import Authentication, AuthenticationError
from pytest_chatdify_db.postgres.errors import NOT_POSTGRESQL, ConnectError, ServerError, TlsFailed
from pytest_chatdify_db.postgres.sockets import open_socket, ssl_mode, words

#: What libpq tries in turn for a mode that leaves a choice.
_ATTEMPTS: Final = {"allow": ("disable", "require"), "prefer": ("prefer", "disable")}

#: SQLSTATE of "no pg_hba.conf entry for ...".
INVALID_AUTHORIZATION: Final = "28000"

#: Parameters of an address that travel in the start-up packet; all others are for the client.
_FOR_THE_SERVER: Final = ("application_name", "options", "client_encoding")


def connect(
    address: Address,
    *,
    timeout: float = 10.0,
    application_name: str = "chatdify-db",
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """Connect and log in.

    Args:
        address: Server, role, password and database; ``sslmode`` and its companions in ``options`` are honoured,
            with libpq's default ``prefer``. A unix socket never uses TLS.
        timeout: Seconds that any step of the log-in may take. Queries have no limit.
        application_name: Shown in ``pg_stat_activity`` unless the address names another.
        settings: Run-time parameters that the session begins with, and returns to by RESET; default none. The encoding
            is UTF-8 in any case.

    Raises:
        ConnectError: There is no server to talk to, or no common way to log in.
        ServerError: The server refused; `ServerError.sqlstate` says why (28P01: wrong password).
    """
    mode = ssl_mode(address)
    startup = _startup_packet(address, {"application_name": application_name, **(settings or {})})
    refusal: ServerError | TlsFailed | None = None
    for attempt in _ATTEMPTS.get(mode, (mode,)):
        try:
            return _log_in(address, attempt, timeout, startup)
        except (ServerError, TlsFailed) as error:
            # Only these may fare better the other way: pg_hba.conf has lines for TLS or for plain connections alone.
            if isinstance(error, ServerError) and error.sqlstate != INVALID_AUTHORIZATION:
                raise
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def cancel(address: Address, pid: int, key: bytes, *, timeout: float = 10.0) -> None:
    """Ask the server at *address* to cancel what the session *pid* is doing; returns when it has taken the request.

    Args:
        address: The address the session was connected with.
        pid: `Connection.pid`.
        key: `Connection.key`.
        timeout: Seconds that any step may take.

    Raises:
        ConnectError: The server cannot be reached.
    """
    mode = ssl_mode(address)
    sock = open_socket(address, "disable" if mode == "allow" else mode, timeout)
    try:
        sock.sendall(wire.cancel_request(pid, key))
        sock.recv(1)
    except OSError as error:
        raise ConnectError(address, words(error, timeout)) from error
    finally:
        sock.close()


class Connection:
    """A logged-in session; also a context manager that closes it. Made by `connect`.

    Attributes:
        address: Where it is connected to.
        parameters: The settings that the server reported (``server_version``, ``TimeZone``, ...).
        pid: The process id of the session.
        key: The secret that allows to cancel it.
        unread: Bytes that the server sent behind the log-in and that nobody has read yet.
        status: The last transaction status, ``I``, ``T`` or ``E``.
    """

    __slots__ = ("_socket", "address", "key", "parameters", "pid", "status", "unread")

    def __init__(self, address: Address, sock: socket.socket) -> None:
        self.address = address
        self.parameters: dict[str, str] = {}
        self.pid = 0
        self.key = b""
        self.status = "I"
        self.unread = bytearray()
        self._socket: socket.socket | None = sock

    @property
    def is_closed(self) -> bool:
        """Whether the socket is closed or was handed over."""
        return self._socket is None

    def query(self, sql: str) -> list[tuple[str | None, ...]]:
        """Run *sql*, one statement or several, and return the rows of the last one that has any, values as text.

        Raises:
            ServerError: A statement failed.
            ConnectError: The connection is closed or broke.
        """
        self._send(wire.query(sql))
        rows: list[tuple[str | None, ...]] = []
        failure: ServerError | None = None
        while True:
            try:
                kind, body = self._receive()
            except ConnectError:
                # A session that was terminated says why before it goes.
                raise failure or ConnectError(self.address, "the server closed the connection") from None
            if kind == b"D":
                rows.append(tuple(None if value is None else value.decode() for value in wire.row_values(body)))
            elif kind == b"T":
                rows = []
            elif kind == b"E":
                failure = failure or ServerError.from_body(body)
            elif kind == b"G":
                self._send(wire.message(b"f", b"COPY FROM STDIN is not supported here\0"))
            elif kind == b"Z":
                if failure:
                    raise failure
                return rows

    def detach(self) -> socket.socket:
        """Hand the socket over (blocking, without timeout; a `ssl.SSLSocket` over TLS); the caller has to close it.

        Bytes that arrived already are in `unread`.

        Raises:
            ConnectError: It is closed already.
        """
        sock = self._open_socket()
        self._socket = None
        return sock

    def close(self) -> None:
        """End the session; more than once is fine."""
        sock, self._socket = self._socket, None
        if sock is not None:
            with suppress(OSError):
                sock.sendall(wire.TERMINATE)
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- Bytes and messages

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectError(self.address, "the connection is closed")
        return self._socket

    def _send(self, data: bytes) -> None:
        try:
            self._open_socket().sendall(data)
        except OSError as error:
            raise self._broken(error) from error

    def _receive(self) -> tuple[bytes, bytes]:
        """Return the next message; what the server reports unasked is recorded on the way."""
        buffer = self.unread
        while len(buffer) < 5 or len(buffer) <= wire.int32(buffer, 1):
            try:
                chunk = self._open_socket().recv(65536)
            except OSError as error:
                raise self._broken(error) from error
            if not chunk:
                self._abandon()
                raise ConnectError(self.address, "the server closed the connection")
            buffer += chunk
            if len(buffer) > 4 and not 4 <= wire.int32(buffer, 1) <= wire.MAX_MESSAGE_LENGTH:
                self._abandon()
                raise ConnectError(self.address, NOT_POSTGRESQL)
        end = wire.int32(buffer, 1) + 1
        kind, body = bytes(buffer[:1]), bytes(buffer[5:end])
        del buffer[:end]
        if kind == b"S":
            name, value, _ = body.split(b"\0")
            self.parameters[name.decode()] = value.decode()
        elif kind == b"K":
            self.pid, self.key = wire.int32(body), body[4:]
        elif kind == b"Z":
            self.status = body.decode()
        return kind, body

    def _broken(self, error: OSError) -> ConnectError:
        timeout = self._socket.gettimeout() if self._socket else None
        self._abandon()
        return ConnectError(self.address, words(error, timeout))

    def _abandon(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _authenticate(self, startup: bytes) -> None:
        """Take a fresh connection to its first ReadyForQuery."""
        dialogue = Authentication(self.address.user, self.address.password)
        self._send(startup)
        while True:
            kind, body = self._receive()
            if kind == b"R":
                if answer := dialogue.receive(body):
                    self._send(answer)
            elif kind == b"E":
                raise ServerError.from_body(body)
            elif kind == b"Z" and dialogue.is_complete:
                return
            elif kind not in {b"S", b"K", b"N", b"v"}:
                raise ConnectError(self.address, NOT_POSTGRESQL)


# -- Logging in


def _startup_packet(address: Address, settings: Mapping[str, str]) -> bytes:
    given = {name: value for name, value in address.options if name in _FOR_THE_SERVER}
    identity = {"user": address.user, "database": address.database}
    return wire.startup({**identity, **settings, **given, "client_encoding": "UTF8"})


def _log_in(address: Address, mode: str, timeout: float, startup: bytes) -> Connection:
    sock = open_socket(address, mode, timeout)
    connection = Connection(address, sock)
    try:
        connection._authenticate(startup)
    except AuthenticationError as error:
        connection._abandon()
        raise ConnectError(address, str(error)) from None
    except BaseException:
        connection._abandon()
        raise
    sock.settimeout(None)
    return connection
