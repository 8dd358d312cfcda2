"""From an address to a connected socket: unix or TCP, TLS as its ``sslmode`` says.

Nothing is said but the wish for TLS. What fails is a `ConnectError` in words of somebody who wants a connection.
"""

from __future__ import annotations

import socket
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.errors import NOT_POSTGRESQL, ConnectError, TlsFailed

SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def ssl_mode(address: Address) -> str:
    """Return the ``sslmode`` that applies to *address*.

    Raises:
        ConnectError: The address names one that does not exist.
    """
    if address.is_socket:
        return "disable"
    mode = dict(address.options).get("sslmode", "prefer")
    if mode not in SSL_MODES:
        raise ConnectError(address, f"sslmode {mode!r} is none of {', '.join(SSL_MODES)}")
    return mode


def open_socket(address: Address, mode: str, timeout: float) -> socket.socket:
    """Return a connected socket, with TLS where *mode* and the server want it.

    Args:
        address: Where to.
        mode: One that decides by itself: any of `SSL_MODES` but ``allow``.
        timeout: Seconds that any step may take; the socket keeps it.

    Raises:
        ConnectError: The server cannot be reached.
        TlsFailed: It can be, but not with TLS as the mode wants it.
    """
    sock: socket.socket | None = None
    try:
        if address.is_socket:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(timeout)
            sock.connect(f"{address.host}/.s.PGSQL.{address.port}")
            return sock
        sock = socket.create_connection((address.host, address.port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock if mode == "disable" else _start_tls(sock, address, mode)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise ConnectError(address, words(error, timeout)) from error
        raise


def words(error: OSError, timeout: float | None = None) -> str:
    """Say what *error* means for somebody who wants a connection.

    Args:
        error: As the socket raised it.
        timeout: Seconds that were waited; default none.
    """
    if isinstance(error, TimeoutError) and timeout:
        return f"no answer within {timeout:g} s"
    if isinstance(error, socket.gaierror):
        return "the name of the host cannot be resolved"
    if isinstance(error, FileNotFoundError):
        return "there is no such socket; no server runs there"
    text = error.strerror or str(error) or type(error).__name__
    return text[0].lower() + text[1:]


def _start_tls(sock: socket.socket, address: Address, mode: str) -> socket.socket:
    """Ask for TLS (54.2.10) and return the socket to go on with."""
    sock.sendall(wire.pack_int32(8) + wire.pack_int32(wire.SSL_REQUEST))
    # One byte and no more: whatever a third party slipped in behind it must fall into the TLS handshake and break it.
    answer = sock.recv(1)
    if answer == b"N":
        if mode == "prefer":
            return sock
        raise TlsFailed(address, f"sslmode={mode} needs TLS and the server offers none")
    if answer != b"S":
        raise ConnectError(address, NOT_POSTGRESQL)
    from pytest_chatdify_db.postgres import tls

    try:
        return tls.context(mode, dict(address.options)).wrap_socket(sock, server_hostname=address.host)
    except TimeoutError:
        raise
    except (OSError, ValueError) as error:
        raise TlsFailed(address, f"TLS failed: {error}") from error
