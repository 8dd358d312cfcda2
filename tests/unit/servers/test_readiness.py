"""Waiting for a server that does not come, and the ways to a container, with stand-ins for server and engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.servers import container, embedded
from pytest_chatdify_db.servers.run import Run
from pytest_chatdify_db.servers.supervision import Supervision
from pytest_chatdify_db.servers.supervisor import Job

QUIET = cast("Supervision", SimpleNamespace(exit_code=lambda within: None))


@dataclass
class FakeContainer:
    """What the Docker client tells about a container."""

    status: str = "running"
    ports: dict[str, Any] = field(default_factory=lambda: {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "49153"}]})
    id: str = "c1"

    def reload(self) -> None:
        """Ask again."""

    def logs(self, tail: int) -> bytes:
        """Return the last lines."""
        return b"one\ntwo\n"


def client(mode: str) -> Any:
    """Return testcontainers' client for a way to reach containers."""
    return SimpleNamespace(
        get_connection_mode=lambda: SimpleNamespace(value=mode),
        gateway_ip=lambda name: "172.17.0.1",
        bridge_ip=lambda name: "172.17.0.9",
        host=lambda: "engine.example",
    )


@pytest.mark.parametrize(
    ("mode", "is_local", "place"),
    [
        ("docker_host", True, ("127.0.0.1", 49153)),
        ("gateway_ip", True, ("127.0.0.1", 49153)),
        ("bridge_ip", True, ("127.0.0.1", 49153)),
        ("docker_host", False, ("engine.example", 49153)),
        ("gateway_ip", False, ("172.17.0.1", 49153)),
        ("bridge_ip", False, ("172.17.0.9", 5432)),
    ],
)
def test_the_way_to_a_container(mode: str, is_local: bool, place: tuple[str, int]) -> None:
    """By loopback beside the engine; else by the engine's machine, its gateway, or the containers' own network."""
    address = container._address(client(mode), FakeContainer(), "pw", is_local)

    assert address is not None
    assert (address.host, address.port) == place


def test_a_port_that_is_not_published_yet() -> None:
    """There is no address before the engine has chosen the port."""
    assert container._address(client("docker_host"), FakeContainer(ports={}), "pw", is_local=True) is None


@pytest.mark.parametrize("published", [True, False])
def test_a_container_that_never_answers(monkeypatch: pytest.MonkeyPatch, published: bool) -> None:
    """After a while the last failure and the last lines of the log are shown."""
    monkeypatch.setattr(container, "_PATIENCE", 0.05)
    address = Address("127.0.0.1", 1, password="s3cret") if published else None
    with pytest.raises(ServerUnavailable, match=r"was not ready after 0\.05 s") as caught:
        container._await(lambda: None, FakeContainer(), "postgres:17", lambda: address)

    assert ("connection refused" if published else "its port was not published") in caught.value.cause
    assert caught.value.cause.endswith("one\ntwo")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "123\n/data\n", "123\n/data\nready   \n"])
def test_a_server_that_never_gets_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    """Without pid file, without its word "ready", or without a socket: there is an end to waiting."""
    monkeypatch.setattr(embedded, "_PATIENCE", 0.05)
    (tmp_path / "log").write_text("starting\n")
    if content is not None:
        (tmp_path / "postmaster.pid").write_text(content)
    with pytest.raises(ServerUnavailable, match=r"was not ready after 0\.05 s") as caught:
        embedded._await(QUIET, Address(str(tmp_path)), tmp_path, tmp_path / "log")

    assert ("there is no such socket" in caught.value.cause) is bool(content and "ready" in content)
    assert caught.value.cause.endswith("starting")


def test_a_log_that_does_not_exist(tmp_path: Path) -> None:
    """No log is an empty one."""
    assert embedded._tail(tmp_path / "none") == ""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a run."""
    made = Run.create(tmp_path / "runs")
    yield made
    made.close()


def test_a_supervisor_that_dies_ends_the_waiting(run: Run) -> None:
    """Its silence is not mistaken for a server that is slow."""
    job: Job = {"command": None, "data": None, "container": None, "engine": ""}
    with Supervision(run, job, "x") as supervision:
        supervision._say(b"nonsense\n")

        assert supervision.exit_code(within=10.0) == -1
        supervision.keep()


def test_the_exit_code_of_the_server_is_heard(run: Run) -> None:
    """A server that ends at once is told from one that is slow."""
    command = {"argv": ["/bin/sh", "-c", "exit 7"], "user": None, "group": None, "log": str(run.directory / "log")}
    job = cast("Job", {"command": command, "data": None, "container": None, "engine": ""})
    code: int | None = None
    with Supervision(run, job, "x") as supervision:
        supervision.go()
        while code is None:
            code = supervision.exit_code(within=10.0)

    assert code == 7
