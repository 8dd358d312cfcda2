"""The reference deployment: its commands run as they are written, without Docker, and its compose file is sound."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from app.config import Settings

from .servers import ROOT, START_SECONDS, Postgres, Workshop, accepts, free_port, program

DEPLOYMENT = ROOT / "examples" / "deployment"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("migrate", "web", "worker")

needs_servers = pytest.mark.needs("initdb", "openssl", "redis-server")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The services of the compose file that are this project's own, to run beside servers on loopback.

    Args:
        workshop: Where its processes run.
        postgres: Its database.
        environment: The variables of the compose file, with the places of these servers.
        port: Where its web server listens.
    """

    workshop: Workshop
    postgres: Postgres
    environment: dict[str, str]
    port: int

    def command(self, service: str) -> list[str]:
        """Return the command of *service*, on this interpreter, loopback and port."""
        places = {"python": sys.executable, "0.0.0.0": "127.0.0.1", "8000": str(self.port)}
        return [places.get(word, word) for word in SERVICES[service]["command"]]

    def health_command(self, service: str) -> list[str]:
        """Return what the health check of *service* gives to its interpreter."""
        kind, interpreter, *arguments = SERVICES[service]["healthcheck"]["test"]
        assert (kind, interpreter) == ("CMD", "python")
        return [argument.replace(":8000/", f":{self.port}/") for argument in arguments]

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the deployment to its end."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=DEPLOYMENT,
            env={**os.environ, **self.environment, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def start(self, service: str, ready: Callable[[], bool], **variables: str) -> subprocess.Popen[bytes]:
        """Start *service*, and wait until it is ready."""
        return self.workshop.start(
            self.command(service), ready=ready, environment={**self.environment, **variables}, cwd=DEPLOYMENT
        )

    def logs(self) -> str:
        """Return what all services have logged."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.workshop.directory.glob("*.log")))

    def answers(self) -> bool:
        """Return whether the web server does."""
        return accepts(self.port)

    def has_worker(self) -> bool:
        """Return whether a Celery worker has said that it is ready."""
        return " ready." in self.logs()


@pytest.fixture
def deployment(workshop: Workshop, own_postgres: Postgres, redis: str) -> Iterator[Deployment]:
    """Give the deployment with an empty database, a Redis, and nothing started."""
    own_postgres.execute("CREATE DATABASE shop")
    environment = {
        **{name: str(value) for name, value in SERVICES["web"]["environment"].items() if "$" not in str(value)},
        **own_postgres.parts(),
        "POSTGRES_DB": "shop",
        "CELERY_BROKER_URL": redis,
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    yield Deployment(workshop, own_postgres, environment, free_port())
    own_postgres.execute("DROP DATABASE shop WITH (FORCE)")


@needs_servers
def test_it_works(deployment: Deployment) -> None:
    """Migrated by its own command, it takes an order, a worker confirms it, health is told, and it stops cleanly."""
    migrated = deployment.run(*SERVICES["migrate"]["command"][1:])
    assert migrated.returncode == 0, migrated.stderr
    web = deployment.start("web", deployment.answers, SQL_LOG="1")
    worker = deployment.start("worker", deployment.has_worker, PYTHONWARNINGS="default")

    with httpx.Client(base_url=f"http://127.0.0.1:{deployment.port}", timeout=START_SECONDS) as http:
        assert http.get("/health").json()["database"] == "ok"
        new = http.post("/orders/first")
        again = http.post("/orders/first")
        number = new.json()["id"]
        _until(lambda: bool(http.get(f"/orders/{number}").json()["is_confirmed"]))
    healthy = {name: deployment.run(*deployment.health_command(name)) for name in ("web", "worker")}
    for process in (web, worker):
        process.send_signal(signal.SIGTERM)
    codes = [process.wait(START_SECONDS) for process in (web, worker)]

    assert (new.status_code, again.status_code) == (201, 409)
    assert {name: (done.returncode, done.stderr) for name, done in healthy.items()} == {
        "web": (0, ""),
        "worker": (0, ""),
    }
    # uvicorn shuts down, then ends by the signal it was sent.
    assert codes[0] in {0, -signal.SIGTERM}
    assert codes[1] == 0
    logs = deployment.logs()
    assert "sqlalchemy.engine.Engine INFO INSERT INTO orders" in logs
    assert deployment.postgres.password not in logs


@needs_servers
def test_migrations_are_complete(deployment: Deployment) -> None:
    """After the migrations the models are in the database, and Alembic finds nothing to add; they can be undone."""
    for command, expected in {
        "upgrade head": "",
        "check": "No new upgrade operations detected",
        "downgrade base": "",
        "upgrade head --sql": "CREATE TABLE orders",
    }.items():
        done = deployment.run("-m", "alembic", *command.split())
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


@needs_servers
def test_a_database_that_is_down(deployment: Deployment) -> None:
    """Requests are answered with 503, and both health checks fail, the worker's with a text without a password."""
    down = str(free_port())
    deployment.start("web", deployment.answers, DB_PORT=down)
    with httpx.Client(base_url=f"http://127.0.0.1:{deployment.port}", timeout=START_SECONDS) as http:
        answer = http.get("/health")
        order = http.post("/orders/first")
    web = deployment.run(*deployment.health_command("web"))
    checked = deployment.run(*deployment.health_command("worker"), DB_PORT=down)

    assert (answer.status_code, answer.json()) == (503, {"database": "unavailable"})
    assert order.status_code == 503
    assert (web.returncode, checked.returncode) == (1, 1)
    assert checked.stderr.startswith("The database did not answer.\nCause: OperationalError: ")
    assert deployment.postgres.password not in checked.stderr


def test_compose_file() -> None:
    """Services wait for services that are there and can be healthy; every variable is one that somebody reads."""
    read = set(Settings.model_fields) | set(re.findall(r'environ\.get\("(\w+)"', _sources()))

    for name in OURS:
        service = SERVICES[name]
        assert service["command"][:2] == ["python", "-m"]
        assert service["environment"].keys() <= read
        for other, condition in service["depends_on"].items():
            assert condition["condition"] == "service_completed_successfully" or "healthcheck" in SERVICES[other]
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in COMPOSE["volumes"]


@pytest.mark.needs("docker-compose")
def test_compose_accepts_the_file() -> None:
    """Compose itself reads the file with nothing but the password set, and refuses it without."""

    def config(**variables: str) -> subprocess.CompletedProcess[str]:
        known = {name: value for name, value in os.environ.items() if name not in Settings.model_fields}
        command = [program("docker-compose"), "--file", str(DEPLOYMENT / "compose.yaml"), "config"]
        return subprocess.run(command, env=known | variables, capture_output=True, text=True, check=False)

    given, refused = config(POSTGRES_PASSWORD="s3cr3t-Zq"), config()

    assert given.returncode == 0, given.stderr
    services = yaml.safe_load(given.stdout)["services"]
    assert services.keys() == SERVICES.keys()
    for name in OURS:
        assert services[name]["command"] == SERVICES[name]["command"]
        assert services[name]["environment"].keys() == SERVICES[name]["environment"].keys()
        assert services[name]["environment"]["POSTGRES_PASSWORD"] == "s3cr3t-Zq"
    assert refused.returncode != 0
    assert "put POSTGRES_PASSWORD into .env" in refused.stderr


@pytest.mark.parametrize("name", OURS)
def test_variables_have_accepted_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the file sets is what the settings accept; what it leaves empty has its default."""
    for field in Settings.model_fields:
        monkeypatch.delenv(field, raising=False)
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(
            variable, re.sub(r"\$\{POSTGRES_PASSWORD.*\}", "s3cr3t-Zq", re.sub(r"\$\{\w+:-\}", "", value))
        )

    settings = Settings()

    assert settings.url.render_as_string() == "postgresql://shop:***@db:5432/shop"
    assert (settings.DB_POOL_SIZE, settings.DB_STATEMENT_TIMEOUT_MS) == (10, 30000)


def test_places_fit_together() -> None:
    """The host names, roles and ports that services use are those of the other services."""
    ours = SERVICES["web"]["environment"]
    database = SERVICES["db"]["environment"]

    assert SERVICES.keys() >= {ours["DB_HOST"], urlsplit(ours["CELERY_BROKER_URL"]).hostname}
    assert {name: ours[name] for name in database} == database
    probe = SERVICES["db"]["healthcheck"]["test"]
    assert probe[probe.index("--username") + 1] == database["POSTGRES_USER"]
    assert probe[probe.index("--dbname") + 1] == database["POSTGRES_DB"]
    port = SERVICES["web"]["command"][-1]
    assert SERVICES["web"]["ports"] == [f"{port}:{port}"]
    assert f"127.0.0.1:{port}/health" in SERVICES["web"]["healthcheck"]["test"][-1]


def test_the_image_has_what_the_commands_start() -> None:
    """Each module that a command starts is of this project or of a package that the image installs."""
    installed = set((DEPLOYMENT / "requirements.txt").read_text(encoding="utf-8").split())
    modules = {SERVICES[name]["command"][2] for name in OURS}
    image = (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8")

    assert modules <= {re.split(r"\W", line)[0] for line in installed}
    assert f"CMD {json.dumps(SERVICES['web']['command'])}" in image


def test_no_password_is_written_down() -> None:
    """The compose file asks for the password, and has no default for it."""
    given = {
        service["environment"]["POSTGRES_PASSWORD"]
        for service in SERVICES.values()
        if "POSTGRES_PASSWORD" in service.get("environment", {})
    }

    assert given == {"${POSTGRES_PASSWORD:?put POSTGRES_PASSWORD into .env}"}


def test_requirements() -> None:
    """The image installs this package with extras that it has."""
    lines = (DEPLOYMENT / "requirements.txt").read_text(encoding="utf-8").splitlines()

    assert "chatdify-db[celery,fastapi]" in lines


def test_every_service_is_explained() -> None:
    """The page has a row for each service."""
    page = (DEPLOYMENT / "README.md").read_text(encoding="utf-8")

    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(SERVICES)


def _sources() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in (DEPLOYMENT / "app").glob("*.py"))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
