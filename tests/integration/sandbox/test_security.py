"""Who may connect to the sandbox, who may cancel, and where no password is ever seen."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import psycopg2
import psycopg2.errors
import pytest

from pytest_chatdify_db.postgres import connection as plain
from pytest_chatdify_db.postgres.errors import ServerError
from pytest_chatdify_db.servers.run import Run

from .stage import DATABASE, PASSWORD, USER, StagedSandbox, running


@pytest.mark.parametrize(
    ("user", "password", "database", "text"),
    [
        (USER, "wrong", DATABASE, f'password authentication failed for user "{USER}"'),
        (USER, "", DATABASE, f'password authentication failed for user "{USER}"'),
        ("clerk", PASSWORD, DATABASE, 'password authentication failed for user "clerk"'),
        (USER, PASSWORD, "postgres", 'database "postgres" does not exist'),
    ],
)
def test_strangers_are_refused(sandbox: StagedSandbox, user: str, password: str, database: str, text: str) -> None:
    """A wrong password, another role and another database are refused, and nothing but the role is repeated."""
    address = sandbox.address

    with pytest.raises(psycopg2.OperationalError) as caught:
        psycopg2.connect(
            host=address.host, port=address.port, user=user, password=password or "x", dbname=database
        ).close()

    assert text in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_the_socket_is_on_loopback_alone(sandbox: StagedSandbox) -> None:
    """The port is reached at 127.0.0.1 and at no other address of the machine."""
    assert sandbox.address.host == "127.0.0.1"
    with socket.socket() as elsewhere:
        # It could not be bound if the sandbox listened on every address.
        elsewhere.bind(("127.0.0.2", sandbox.address.port))


def test_a_cancel_request_needs_its_key(sandbox: StagedSandbox) -> None:
    """A cancel request with a wrong key, with an old key, or with another client's does nothing."""
    old = plain.connect(sandbox.address)
    other = plain.connect(sandbox.address)
    with plain.connect(sandbox.address) as client:
        old.close()
        result: list[object] = []
        thread = threading.Thread(target=lambda: result.append(client.query("SELECT pg_sleep(0.5), 1")))
        thread.start()
        for pid, key in [
            (client.pid, b"\0" * len(client.key)),
            (client.pid, other.key),
            (client.pid, b""),
            (old.pid, old.key),
            (other.pid, other.key),
        ]:
            plain.cancel(sandbox.address, pid, key)
        thread.join()

        assert result == [[("", "1")]]
    other.close()


def test_a_cancel_request_with_its_key_works(sandbox: StagedSandbox) -> None:
    """The client's own key cancels."""
    with plain.connect(sandbox.address) as client:
        timer = threading.Timer(0.3, plain.cancel, (sandbox.address, client.pid, client.key))
        timer.start()
        with pytest.raises(ServerError, match="canceling statement due to user request"):
            client.query("SELECT pg_sleep(30)")
        timer.join()


def test_no_password_in_the_process_list(sandbox: StagedSandbox) -> None:
    """Neither the arguments nor the environment of the sandbox's process hold a password."""
    secret = "not-for-the-process-list"
    with running(sandbox.behind, password=secret) as other:
        process = Path(f"/proc/{other.handle._process.pid}")
        with plain.connect(other.address) as client:
            assert client.query("SELECT 1") == [("1",)]

        assert secret.encode() not in (process / "cmdline").read_bytes()
        assert secret.encode() not in (process / "environ").read_bytes()


def test_the_directory_of_a_run_is_private(tmp_path: Path) -> None:
    """The directory of a run, and each file in it, is for its user alone."""
    run = Run.create(tmp_path / "root")
    try:
        file = run.write("server.json", "{}")
        assert [run.directory.stat().st_mode & 0o777, file.stat().st_mode & 0o777] == [0o700, 0o600]
        # Others may pass through what is above it, as a server's own user must, but not look around.
        assert run.directory.parent.stat().st_mode & 0o066 == 0
    finally:
        run.close()
