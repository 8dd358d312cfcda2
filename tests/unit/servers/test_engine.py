"""The Docker engine, found and asked without a Docker client."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.servers import engine


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide this machine's own Docker."""
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CONTEXT", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(engine, "DEFAULT", f"unix://{tmp_path}/default.sock")


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[str]:
    """Let an engine on the socket *path* give *answer* to one request."""

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"unix://{path}"
        thread.join()


def test_an_engine_that_answers(tmp_path: Path) -> None:
    """A ping is enough."""
    with answering(tmp_path / "s", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK") as place:
        engine.require(place)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "it answers with an error"),
        (b"what?\r\n\r\n", "what?"),
        (b"", "remote end closed connection without response"),
    ],
)
def test_an_engine_that_is_none(tmp_path: Path, answer: bytes, cause: str) -> None:
    """The cause says what came back."""
    with (
        answering(tmp_path / "s", answer) as place,
        pytest.raises(ServerUnavailable) as caught,
    ):
        engine.require(place)

    assert caught.value.cause == f"nothing answers at {place}: {cause}"


def test_nobody_there(tmp_path: Path) -> None:
    """A missing socket, a socket without engine and a closed port are told apart."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    for place, cause in (
        (f"unix://{tmp_path}/none", "there is no such socket"),
        (f"unix://{tmp_path}/left", "connection refused"),
        ("tcp://127.0.0.1:1", "connection refused"),
    ):
        with pytest.raises(ServerUnavailable) as caught:
            engine.require(place)

        assert caught.value.cause == f"nothing answers at {place}: {cause}"


def test_a_forbidden_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out is the group that owns it."""

    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    with pytest.raises(ServerUnavailable, match=r"sudo usermod -aG docker \$USER"):
        engine.require(f"unix://{tmp_path}/s")


@pytest.mark.parametrize("place", ["ssh://host", "npipe:////./pipe/docker_engine"])
def test_what_only_the_docker_client_can_reach_is_left_to_it(place: str) -> None:
    """No verdict on what needs ssh."""
    engine.require(place)


def test_an_engine_behind_tls_is_left_to_the_docker_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """No verdict on what needs certificates."""
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    engine.require("tcp://127.0.0.1:1")


def test_where_the_engine_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOCKER_HOST, then the chosen context, then the sockets of Docker Desktop and rootless Docker."""
    assert engine.endpoint() == engine.DEFAULT

    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "docker.sock").touch()
    assert engine.endpoint() == f"unix://{tmp_path}/runtime/docker.sock"

    (tmp_path / ".docker" / "run").mkdir(parents=True)
    (tmp_path / ".docker" / "run" / "docker.sock").touch()
    assert engine.endpoint() == f"unix://{tmp_path}/.docker/run/docker.sock"

    meta = tmp_path / ".docker" / "contexts" / "meta" / sha256(b"colima").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": "unix:///colima.sock"}}}))
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"currentContext": "colima"}))
    assert engine.endpoint() == "unix:///colima.sock"

    monkeypatch.setenv("DOCKER_HOST", "tcp://elsewhere:2375")
    assert engine.endpoint() == "tcp://elsewhere:2375"


def test_a_broken_configuration_of_docker_is_ignored(tmp_path: Path) -> None:
    """Docker's own client complains about it; we look at the usual socket."""
    (tmp_path / ".docker").mkdir()
    for text in ("", "{}", "[]", '{"currentContext": "gone"}'):
        (tmp_path / ".docker" / "config.json").write_text(text)

        assert engine.endpoint() == engine.DEFAULT


def test_an_engine_of_this_machine_is_beside_us(tmp_path: Path) -> None:
    """Who listens is a process that we can see, in our network."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        assert engine.is_beside_us(f"unix://{tmp_path / 's'}") is (sys.platform == "linux")


def test_asking_imports_no_docker_client() -> None:
    """The question costs milliseconds; the client's import would cost a second."""
    code = "import sys, pytest_chatdify_db.servers.container; print({'docker', 'testcontainers'} & set(sys.modules))"
    root = Path(engine.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )

    assert done.stdout == "set()\n"
