"""Containers for real: a server in one, every way that fails, and none left."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import ContainerCollection  # type: ignore[import-untyped]  # it has no types

from pytest_chatdify_db import servers
from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.servers import Server, container, engine, supervisor
from pytest_chatdify_db.servers.base import THROWAWAY
from pytest_chatdify_db.servers.run import Run

IMAGE = os.environ.get("CHATDIFY_DB_IMAGE", "postgres:17-alpine")
PACKAGE_ROOT = Path(servers.__file__).parents[2]

OWNER = """
import os, signal, sys
from pytest_chatdify_db import servers
from pytest_chatdify_db.servers.run import Run
run = Run.create()
servers.start("container", image=sys.argv[1], run=run, progress=lambda line: None)
print(run.directory, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run() -> Iterator[Run]:
    """Return a run that is closed after the test."""
    made = Run.create()
    yield made
    made.close()


def start(run: Run, image: str = IMAGE, news: list[str] | None = None) -> Server:
    """Start a server in a container."""
    return servers.start("container", image=image, run=run, progress=(news if news is not None else []).append)


def docker(*arguments: str) -> str:
    """Run ``docker`` and return its output."""
    environment = {**os.environ, "DOCKER_HOST": engine.endpoint()}
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.strip()


def containers_of(run_id: str) -> list[str]:
    """Return the containers of a run, those that ended too."""
    return docker("ps", "--all", "--quiet", "--filter", f"label={container.LABEL}={run_id}").split()


@pytest.mark.docker
def test_a_server_in_a_container(run: Run) -> None:
    """It answers on this machine's loopback interface alone, with its data in memory and every setting taken."""
    news: list[str] = []
    server = start(run, news=news)
    with connect(server.address) as connection:
        shown = connection.query("SELECT name, current_setting(name) FROM pg_settings")
    (name,) = containers_of(run.id)
    bindings = docker("inspect", "--format", "{{json .NetworkSettings.Ports}}", name)
    settings = {row[0]: row[1] for row in shown}

    assert server.address.host == "127.0.0.1"
    assert '"HostIp":"127.0.0.1"' in bindings
    assert "0.0.0.0" not in bindings
    assert {key: settings[key] for key in THROWAWAY} == THROWAWAY
    assert docker("inspect", "--format", "{{json .HostConfig.Tmpfs}}", name) == '{"/chatdify-db":""}'
    assert (server.provider, server.is_managed, server.fsync_off) == ("container", True, True)
    assert server.reason == f"as asked for; image {IMAGE}"
    assert news == [f"starting a container of {IMAGE}"]


@pytest.mark.docker
def test_auto_takes_it(run: Run) -> None:
    """Where an engine answers and has the image, that is the first choice."""
    server = servers.start("auto", image=IMAGE, run=run, progress=lambda line: None)

    assert (server.provider, server.reason) == ("container", f"the first choice; image {IMAGE}")


@pytest.mark.docker
def test_auto_goes_on_without_the_image(run: Run) -> None:
    """An image that nobody has is no obstacle where programs are on the machine."""
    server = servers.start("auto", image="127.0.0.1:1/nothing:1", run=run, progress=lambda line: None)

    assert server.provider == "embedded"
    assert server.reason.startswith("no container: ")


@pytest.mark.docker
def test_close_removes_the_container() -> None:
    """The end of the run is the end of the container and of its volumes."""
    run = Run.create()
    start(run)
    before = containers_of(run.id)
    volumes = docker("inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", before[0]).split()
    run.close()

    assert len(before) == 1
    assert containers_of(run.id) == []
    assert not set(volumes) & set(docker("volume", "ls", "--quiet").split())
    assert not run.directory.exists()


@pytest.mark.docker
def test_a_killed_run_leaves_no_container() -> None:
    """The supervisor removes it, although no reaper runs."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, IMAGE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
    ) as owner:
        assert owner.stdout is not None
        directory = Path(owner.stdout.readline().strip())
        assert len(containers_of(directory.name)) == 1
        owner.communicate("\n")
        for job in directory.glob("*.job"):
            supervisor.wait_for_end_of(job)

    assert containers_of(directory.name) == []
    assert not directory.exists()


@pytest.mark.docker
def test_an_image_that_cannot_be_pulled(run: Run) -> None:
    """What the engine says about it is the cause."""
    news: list[str] = []
    with pytest.raises(ServerUnavailable, match=r"could not pull the image '127\.0\.0\.1:1/nothing:1'") as caught:
        start(run, "127.0.0.1:1/nothing:1", news)

    assert "connection refused" in caught.value.cause
    assert news == ["pulling the image 127.0.0.1:1/nothing:1"]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ('ENTRYPOINT ["/bin/sh", "-c", "echo no such disk; exit 7"]', "it ended with exit code 7"),
        ('ENTRYPOINT ["/no/such/program"]', "no such file or directory"),
    ],
)
def test_a_container_that_does_not_run(run: Run, change: str, cause: str) -> None:
    """Its exit code, its last words or the engine's words are the cause, and it is removed."""
    made = docker("create", IMAGE)
    image = "chatdify-db-test/broken:1"
    docker("commit", "--change", change, made, image)
    try:
        with pytest.raises(ServerUnavailable) as caught:
            start(run, image)

        assert cause in caught.value.cause
        assert ("no such disk" in caught.value.cause) is ("no such disk" in change)
        assert containers_of(run.id) == []
    finally:
        docker("rm", "--force", made)
        docker("rmi", "--force", image)


@pytest.mark.docker
def test_a_port_that_cannot_be_published(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's reason is shown, and nothing is left of the try."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        create = ContainerCollection.run

        def run_with_taken_port(self: ContainerCollection, *arguments: Any, **options: Any) -> Any:
            return create(self, *arguments, **{**options, "ports": {"5432/tcp": ("127.0.0.1", port)}})

        monkeypatch.setattr(ContainerCollection, "run", run_with_taken_port)
        with pytest.raises(ServerUnavailable, match="could not start a container") as caught:
            start(run)

    assert "address already in use" in caught.value.cause
    assert containers_of(run.id) == []


# -- Without an engine


def events(*pairs: tuple[str, str]) -> list[Mapping[str, Any]]:
    """Return what an engine tells about a pull."""
    return [{"status": status, "id": layer} for status, layer in pairs]


def test_a_pull_is_told_by_layers() -> None:
    """One line for each layer that arrived, and none for the rest of the engine's chatter."""
    news: list[str] = []
    told = events(
        ("Pulling from library/postgres", "17"),
        ("Pulling fs layer", "a"),
        ("Pulling fs layer", "b"),
        ("Downloading", "a"),
        ("Already exists", "b"),
        ("Pull complete", "a"),
        ("Pull complete", "a"),
    )
    container._report_pull("postgres:17", told, news.append)

    assert news == ["pulling the image postgres:17: 1 of 2 layers", "pulling the image postgres:17: 2 of 2 layers"]


def test_a_pull_that_breaks_off() -> None:
    """An error in the middle of the stream is the cause."""
    stream: Iterable[Mapping[str, Any]] = [*events(("Pulling fs layer", "a")), {"error": "unexpected EOF"}]

    with pytest.raises(ServerUnavailable) as caught:
        container._report_pull("postgres:17", stream, lambda line: None)
    assert caught.value.cause == "unexpected EOF"


def test_without_testcontainers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that is missing is named."""
    monkeypatch.setattr(container, "find_spec", lambda name: None)

    with pytest.raises(ServerUnavailable, match="the package testcontainers is not installed"):
        container._client("unix:///none")


def test_without_an_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No client library is needed to see that there is no engine."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such/engine.sock")

    with pytest.raises(ServerUnavailable, match=r"nothing answers at unix:///no/such/engine\.sock"):
        start(run)
