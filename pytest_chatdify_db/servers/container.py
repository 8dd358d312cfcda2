"""A PostgreSQL server in a container: data in memory, no durability, published to this machine alone.

testcontainers finds the engine and the way to it. The container itself does not carry that library's session label:
its reaper would remove the server when the worker that started it ends, under the other workers of the run. The run's
supervisor removes it instead, unless it is one that stays for later runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from secrets import token_hex, token_urlsafe
from typing import Any, Final

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.servers import engine, kept
from pytest_chatdify_db.servers.base import THROWAWAY, Progress, ProviderName, Server
from pytest_chatdify_db.servers.run import Run
from pytest_chatdify_db.servers.settings import check_settings
from pytest_chatdify_db.servers.supervision import Supervision
from pytest_chatdify_db.servers.supervisor import Job

#: Label of a container with the id of its run.
LABEL: Final = "chatdify-db.run"

#: Where the data lives in the container: a file system in memory that no image has a volume at.
_DATA: Final = "/chatdify-db"

_PORT: Final = "5432/tcp"

#: Seconds until a container that neither answers nor ends counts as failed; a pull is not counted.
_PATIENCE: Final = 60.0

_LOG_TAIL: Final = 20

#: Seconds between two looks whether it is ready.
_PAUSE: Final = 0.02

#: Where to publish for somebody who is not beside the engine; the password is random.
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - see above


@dataclass(frozen=True, slots=True)
class Container:
    """The provider.

    Args:
        image: The image to run: PostgreSQL's official one, or one with the same contract.
        reason: Why it was chosen.
        stays: Whether it goes on after the run, for later ones.
    """

    image: str
    reason: str
    stays: bool = False

    @property
    def name(self) -> ProviderName:
        """See `Provider.name`."""
        return "container"

    def start(self, run: Run, progress: Progress) -> Server:
        """See `Provider.start`."""
        begun = time.perf_counter()
        place = engine.endpoint()
        engine.require(place)
        client = _client(place)
        try:
            _ensure_image(client.client, self.image, progress)
            progress(f"starting a container of {self.image}")
            start = _start_kept if self.stays else _start
            with start(run, client, place, self.image) as connection:
                check_settings(connection, THROWAWAY)
                return Server(
                    address=connection.address,
                    provider=self.name,
                    reason=f"{self.reason}; image {self.image}{self._remark(client)}",
                    version=connection.parameters["server_version"].split()[0],
                    is_managed=not self.stays,
                    fsync_off=True,
                    started_in=time.perf_counter() - begun,
                )
        finally:
            client.client.close()

    def _remark(self, client: Any) -> str:
        if not self.stays:
            return ""
        name = kept.name_of(client.client.images.get(self.image).id)
        return f"; it stays until it is removed: docker rm --force --volumes {name}"


def _client(place: str) -> Any:
    """Return testcontainers' client of the engine at *place*."""
    if find_spec("testcontainers") is None:
        raise ServerUnavailable.no_testcontainers()
    from docker.errors import DockerException  # type: ignore[import-untyped]  # docker has no types
    from testcontainers.core.docker_client import DockerClient

    try:
        return DockerClient(environment={**os.environ, "DOCKER_HOST": place})
    except DockerException as error:
        raise ServerUnavailable.no_engine(place, str(error)) from None


def _ensure_image(api: Any, image: str, progress: Progress) -> None:
    """Pull *image* if the engine does not have it.

    Raises:
        ServerUnavailable: It cannot be pulled.
    """
    from docker.errors import DockerException, ImageNotFound
    from docker.utils import parse_repository_tag  # type: ignore[import-untyped]  # docker has no types
    from requests.exceptions import RequestException

    try:
        api.images.get(image)
    except ImageNotFound:
        repository, tag = parse_repository_tag(image)
        progress(f"pulling the image {image}")
        try:
            events = api.api.pull(repository, tag=tag or "latest", stream=True, decode=True)
            _report_pull(image, events, progress)
        except (DockerException, RequestException) as error:
            raise ServerUnavailable.cannot_pull(image, _explanation(error)) from None


def _report_pull(image: str, events: Iterable[Mapping[str, Any]], progress: Progress) -> None:
    """Tell how many layers of *image* are there, each time there is one more."""
    layers: dict[str, bool] = {}
    for event in events:
        if "error" in event:
            raise ServerUnavailable.cannot_pull(image, str(event["error"]))
        status = event.get("status")
        if status == "Pulling fs layer":
            layers.setdefault(event["id"], False)
        elif status in {"Pull complete", "Already exists"} and not layers.get(event["id"]):
            layers[event["id"]] = True
            progress(f"pulling the image {image}: {sum(layers.values())} of {len(layers)} layers")


def _start(run: Run, client: Any, place: str, image: str) -> Connection:
    """Start the container and return a connection to its server.

    Raises:
        ServerUnavailable: It does not start, or its server does not.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    name, password = f"chatdify-db-{run.id}-{token_hex(2)}", token_urlsafe(18)
    job: Job = {"command": None, "data": None, "container": name, "engine": place}
    is_local = _is_local(client, place)
    with Supervision(run, job, name) as supervision:
        supervision.go()
        try:
            container = _run(client, image, name, password, {LABEL: run.id}, is_local=is_local)
            pause = partial(supervision.exit_code, within=_PAUSE)
            connection = _await(pause, container, image, lambda: _address(client, container, password, is_local))
        except (DockerException, RequestException) as error:
            raise ServerUnavailable.container_failed(image, _explanation(error), "") from None
        supervision.keep()
    return connection


def _start_kept(_run_of_tests: Run, client: Any, place: str, image: str) -> Connection:
    """Return a connection to the server of a container that stays, started by this run or by an earlier one.

    Raises:
        ServerUnavailable: It does not start, or its server does not.
    """
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    api, is_local = client.client, _is_local(client, place)
    labels = {kept.LABEL: "yes"}

    def find(container: Any) -> Address | None:
        return _address(client, container, kept.password_of(container), is_local)

    try:
        name = kept.name_of(api.images.get(image).id)
        container = kept.find_or_start(
            api, name, lambda: _run(client, image, name, token_urlsafe(18), labels, is_local=is_local)
        )
        try:
            connection = _await(lambda: time.sleep(_PAUSE), container, image, lambda: find(container))
        except ServerUnavailable:
            kept.remove(container)
            raise
        kept.collect(api, name, find)
    except (DockerException, RequestException) as error:
        raise ServerUnavailable.container_failed(image, _explanation(error), "") from None
    return connection


def _is_local(client: Any, place: str) -> bool:
    """Return whether the engine's loopback interface is ours; not from another machine, or a container beside ours."""
    return place.startswith("unix://") and (_mode(client) == "docker_host" or engine.is_beside_us(place))


def _run(client: Any, image: str, name: str, password: str, labels: Mapping[str, str], *, is_local: bool) -> Any:
    return client.client.containers.run(
        image,
        command=["postgres", *(word for pair in THROWAWAY.items() for word in ("-c", "=".join(pair)))],
        detach=True,
        name=name,
        labels=dict(labels),
        environment={
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD": password,
            "POSTGRES_DB": "postgres",
            "POSTGRES_INITDB_ARGS": "--no-sync",
            "PGDATA": f"{_DATA}/data",
        },
        ports={_PORT: ("127.0.0.1" if is_local else _EVERYWHERE, None)},
        tmpfs={_DATA: ""},
        shm_size="256m",
    )


def _await(pause: Callable[[], object], container: Any, image: str, find: Callable[[], Address | None]) -> Connection:
    """Return a connection as soon as the container's server gives one; *find* tells where, once that is known."""
    deadline = time.monotonic() + _PATIENCE
    address: Address | None = None
    cause = "its port was not published"
    while time.monotonic() < deadline:
        container.reload()
        if container.status in {"exited", "dead"}:
            code = container.attrs["State"]["ExitCode"]
            raise ServerUnavailable.container_failed(image, f"it ended with exit code {code}", _tail(container))
        address = address or find()
        if address is not None:
            try:
                return connect(address, timeout=5.0)
            except (ConnectError, ServerError) as error:
                cause = str(error)
        pause()
    raise ServerUnavailable.not_ready(_PATIENCE, cause, _tail(container))


def _address(client: Any, container: Any, password: str, is_local: bool) -> Address | None:
    """Return where the server is reached; None while the port is not published."""
    mode = "loopback" if is_local else _mode(client)
    published = container.ports.get(_PORT)
    if mode == "bridge_ip":
        host, port = client.bridge_ip(container.id), 5432
    elif not published:
        return None
    else:
        port = int(published[0]["HostPort"])
        host = "127.0.0.1"
        if mode == "gateway_ip":
            host = client.gateway_ip(container.id)
        elif mode == "docker_host":
            host = client.host()
    return Address(host=host, port=port, password=password, options=(("sslmode", "disable"),))


def _mode(client: Any) -> str:
    """Return how containers are reached: by published ports, or, from inside another container, by their network."""
    return str(client.get_connection_mode().value)


def _tail(container: Any) -> str:
    return "\n".join(container.logs(tail=_LOG_TAIL).decode(errors="replace").splitlines())


def _explanation(error: Exception) -> str:
    """Return what the engine said, without the URL of its interface around it."""
    return str(getattr(error, "explanation", None) or error)
