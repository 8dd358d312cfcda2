"""The plain connection against servers that are scripts: what each answer becomes, and which words a failure gets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, cancel, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError, TlsFailed
from pytest_chatdify_db.postgres.sockets import ssl_mode

Script = Callable[[socket.socket], None]

GREETING = (
    wire.AUTHENTICATION_OK
    + wire.parameter_status("server_version", "18.4")
    + wire.backend_key_data(77, b"key!")
    + wire.READY["I"]
)


@contextmanager
def server(*scripts: Script) -> Iterator[Address]:
    """Serve one connection by each of *scripts*, in order; give the address."""

    def serve() -> None:
        for script in scripts:
            peer, _ = listener.accept()
            with peer:
                script(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Address("127.0.0.1", listener.getsockname()[1], options=(("sslmode", "disable"),))
        thread.join()


def log_in(peer: socket.socket) -> None:
    """Take any start-up packet and greet."""
    peer.recv(10_000)
    peer.sendall(GREETING)


def answering(*answers: bytes) -> Script:
    """Return a script that logs in and gives one of *answers* to each message."""

    def script(peer: socket.socket) -> None:
        log_in(peer)
        for answer in answers:
            peer.recv(10_000)
            peer.sendall(answer)
        peer.recv(10_000)

    return script


def saying(data: bytes) -> Script:
    """Return a script that sends *data* and hangs up, whatever it is asked."""

    def script(peer: socket.socket) -> None:
        peer.recv(10_000)
        peer.sendall(data)

    return script


def row(*values: bytes | None) -> bytes:
    """Return a DataRow."""
    parts = [wire.pack_int32(-1) if value is None else wire.pack_int32(len(value)) + value for value in values]
    return wire.message(b"D", wire.pack_int16(len(values)) + b"".join(parts))


ASKS_PASSWORD, ASKS_GSSAPI = (wire.message(b"R", wire.pack_int32(code)) for code in (3, 7))
READY = wire.READY["I"]
DESCRIPTION = wire.message(b"T", wire.pack_int16(0))


def test_what_the_server_reports_is_kept() -> None:
    """Settings, process id and cancel key of the greeting."""
    with server(answering()) as address, connect(address) as connection:
        assert connection.parameters == {"server_version": "18.4"}
        assert (connection.pid, connection.key, connection.status) == (77, b"key!", "I")


def test_the_rows_of_the_last_statement_are_returned() -> None:
    """Of several statements the last one with rows counts; NULL is None."""
    answer = (
        DESCRIPTION + row(b"1") + DESCRIPTION + row(b"a", None) + wire.command_complete("SELECT 1") + wire.READY["I"]
    )
    with server(answering(answer)) as address, connect(address) as connection:
        assert connection.query("SELECT 1; SELECT 'a', NULL") == [("a", None)]


def test_an_error_leaves_the_connection_usable() -> None:
    """The error has all its fields, and the next query works."""
    failed = wire.error("42P01", "no such table", detail="really", hint="look") + wire.READY["E"]
    with (
        server(answering(failed, DESCRIPTION + row(b"1") + wire.READY["I"])) as address,
        connect(address) as connection,
    ):
        with pytest.raises(ServerError) as caught:
            connection.query("SELECT")

        assert str(caught.value) == "no such table (SQLSTATE 42P01)\nDETAIL: really\nHINT: look"
        assert (caught.value.sqlstate, caught.value.detail, caught.value.hint) == ("42P01", "really", "look")
        assert connection.status == "E"
        assert connection.query("SELECT 1") == [("1",)]


def test_copy_in_is_declined() -> None:
    """A COPY FROM STDIN is ended, not waited for."""
    failed = wire.error("57014", "COPY failed") + wire.READY["I"]
    with (
        server(answering(wire.message(b"G", b"\0\0\0"), failed)) as address,
        connect(address) as connection,
        pytest.raises(ServerError, match="COPY failed"),
    ):
        connection.query("COPY t FROM STDIN")


def test_a_session_that_is_ended_says_why() -> None:
    """The last words of the server are the error, and the connection is closed."""

    def script(peer: socket.socket) -> None:
        log_in(peer)
        saying(wire.error("57P01", "terminating connection", severity="FATAL"))(peer)

    with server(script) as address, connect(address) as connection:
        with pytest.raises(ServerError, match="terminating connection"):
            connection.query("SELECT 1")
        with pytest.raises(ConnectError, match="the connection is closed"):
            connection.query("SELECT 1")


def test_detach_hands_over_socket_and_unread_bytes() -> None:
    """Nothing that was received is lost, and the connection does not close what it gave away."""

    def script(peer: socket.socket) -> None:
        peer.recv(10_000)
        peer.sendall(GREETING + b"tail")
        peer.recv(1)

    with server(script) as address:
        connection = connect(address)
        with connection.detach() as sock:
            connection.close()
            received = bytes(connection.unread)
            while len(received) < 4:
                received += sock.recv(4)

            assert received == b"tail"
            assert sock.gettimeout() is None
        with pytest.raises(ConnectError, match="the connection is closed"):
            connection.detach()


def test_a_refusal_is_the_servers_error() -> None:
    """An ErrorResponse to the start-up packet is raised as it is."""
    with server(saying(wire.error("28P01", "password authentication failed"))) as address:
        with pytest.raises(ServerError) as caught:
            connect(address)

        assert caught.value.sqlstate == "28P01"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "the server closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there does not speak PostgreSQL's protocol"),
        (wire.message(b"q"), "what answers there does not speak PostgreSQL's protocol"),
        (
            wire.message(b"R", wire.pack_int32(7)),
            "the server asks for authentication by GSSAPI, which is not supported",
        ),
        (ASKS_PASSWORD, "the server asks for a password and the address has none"),
    ],
)
def test_what_is_no_log_in(answer: bytes, cause: str) -> None:
    """Each kind of answer that leads nowhere has its own words."""
    with server(saying(answer)) as address:
        with pytest.raises(ConnectError) as caught:
            connect(address)

        assert caught.value.cause == cause
        assert str(caught.value) == f"{address}: {cause}"


def test_silence_has_an_end() -> None:
    """A server that never answers is given up."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(ConnectError, match=r"no answer within 0\.05 s"),
    ):
        connect(Address("127.0.0.1", listener.getsockname()[1]), timeout=0.05)


def test_nobody_there(tmp_path: Path) -> None:
    """A closed port, a missing socket and an unknown name are told apart."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ConnectError, match="connection refused"):
        connect(Address("127.0.0.1", port))
    with pytest.raises(ConnectError, match="there is no such socket; no server runs there"):
        connect(Address(str(tmp_path)))
    with pytest.raises(ConnectError, match="the name of the host cannot be resolved"):
        connect(Address("nowhere.invalid"))


def test_no_password_in_any_error() -> None:
    """The address in an error hides the password."""
    with pytest.raises(ConnectError) as caught:
        connect(Address("127.0.0.1", 1, password="s3cret"))

    assert "s3cret" not in str(caught.value) + repr(caught.value)


# -- TLS


def with_mode(address: Address, mode: str) -> Address:
    """Return *address* with another ``sslmode``."""
    return Address(address.host, address.port, options=(("sslmode", mode),))


def test_prefer_goes_on_without_tls() -> None:
    """A server without TLS is talked to in the clear."""

    def script(peer: socket.socket) -> None:
        assert peer.recv(8) == wire.pack_int32(8) + wire.pack_int32(wire.SSL_REQUEST)
        peer.sendall(b"N")
        answering()(peer)

    with server(script) as address, connect(with_mode(address, "prefer")) as connection:
        assert connection.pid == 77


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_a_mode_that_needs_tls_says_that_there_is_none(mode: str) -> None:
    """The connection is not made in the clear."""
    with server(saying(b"N")) as address, pytest.raises(TlsFailed, match=f"sslmode={mode} needs TLS and the server"):
        connect(with_mode(address, mode))


def test_prefer_tries_again_in_the_clear_after_tls_failed() -> None:
    """A handshake that breaks is no reason to give up where TLS is only preferred."""

    def broken(peer: socket.socket) -> None:
        peer.recv(8)
        peer.sendall(b"Sthis is no handshake")
        peer.recv(10_000)

    with server(broken, answering()) as address, connect(with_mode(address, "prefer")) as connection:
        assert connection.pid == 77


def test_only_a_missing_entry_in_pg_hba_is_tried_the_other_way() -> None:
    """A wrong password is wrong with and without TLS."""
    no_entry = wire.error("28000", "no pg_hba.conf entry")
    with server(saying(no_entry), saying(b"N")) as address, pytest.raises(ServerError, match="no pg_hba"):
        connect(with_mode(address, "allow"))
    with server(saying(wire.error("28P01", "wrong"))) as address, pytest.raises(ServerError, match="wrong"):
        connect(with_mode(address, "allow"))


def test_ssl_mode() -> None:
    """Prefer by default, never on a socket, and a name that exists."""
    assert ssl_mode(Address("db")) == "prefer"
    assert ssl_mode(Address("/run", options=(("sslmode", "require"),))) == "disable"
    with pytest.raises(ConnectError, match="sslmode 'yes' is none of disable, allow, prefer, require, verify-ca"):
        ssl_mode(Address("db", options=(("sslmode", "yes"),)))


def test_cancel_sends_the_key() -> None:
    """A cancel request goes over a connection of its own, with nothing around it."""
    received = []

    def script(peer: socket.socket) -> None:
        received.append(peer.recv(100))

    with server(script) as address:
        cancel(address, 77, b"key!")

    assert received == [wire.cancel_request(77, b"key!")]


def test_cancel_of_a_server_that_is_gone() -> None:
    """The caller hears that nobody was reached."""
    with pytest.raises(ConnectError, match="connection refused"):
        cancel(Address("127.0.0.1", 1), 77, b"key!")


def test_close_twice_is_fine() -> None:
    """The second close has nothing to do."""
    with server(answering()) as address:
        connection: Connection = connect(address)
        connection.close()
        connection.close()

        assert connection.is_closed
