"""Where the sandbox's unix socket is, and where there is none."""

from __future__ import annotations

import socket
from pathlib import Path

from pytest_chatdify_db import unix_socket


def test_a_socket_of_its_user_alone(tmp_path: Path) -> None:
    """It takes the place of one that a killed process has left, and goes when it is removed."""
    for _ in range(2):
        with unix_socket.bound(tmp_path, 5432) as (listener,):
            assert listener.getsockname() == str(tmp_path / ".s.PGSQL.5432")
            assert unix_socket.path_of(tmp_path, 5432).stat().st_mode & 0o777 == 0o600
        assert listener.fileno() == -1

    unix_socket.remove(tmp_path, 5432)
    unix_socket.remove(tmp_path, 5432)
    assert list(tmp_path.iterdir()) == []


def test_where_there_cannot_be_one(tmp_path: Path) -> None:
    """In a directory with too long a path, as in one that is not there, there is none; the port remains."""
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    with unix_socket.bound(directory, 5432) as none:
        assert none == []
    with unix_socket.bound(tmp_path / "missing", 5432) as none:
        assert none == []
    assert list(directory.iterdir()) == []


def test_it_is_no_socket_that_listens(tmp_path: Path) -> None:
    """Until the sandbox serves, a connection is refused at once."""
    with unix_socket.bound(tmp_path, 5432), socket.socket(socket.AF_UNIX) as client:
        assert client.connect_ex(str(unix_socket.path_of(tmp_path, 5432))) != 0
