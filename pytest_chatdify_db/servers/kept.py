"""Containers that stay for later runs: found by their names, shared by all runs that want the same, removed when old.

The rule: such a container belongs to no run. To its runs it is a server that is not theirs, on which each has databases
of its own under a lease; it is removed if it has ended, or if nobody is connected and nobody was for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.servers import leases
from pytest_chatdify_db.servers.base import THROWAWAY

#: Label of such a container.
LABEL: Final = "chatdify-db.kept"

#: Seconds after which one that nobody uses is removed.
LONGEST: Final = 14 * 24 * 3600.0

#: Raised when something else than the settings changes in how a container is started.
_FORM: Final = 1

_ENDED: Final = ("exited", "dead")

#: Seconds that a name may be taken by a container that the engine does not know, and between two looks at it.
_PATIENCE: Final = 10.0
_PAUSE: Final = 0.05
_CONFLICT: Final = 409


def name_of(image_id: str) -> str:
    """Return the name of the container that runs the image *image_id* with the settings of this version."""
    facts = repr((_FORM, image_id, sorted(THROWAWAY.items())))
    return f"chatdify-db-kept-{sha256(facts.encode()).hexdigest()[:12]}"


def find_or_start(api: Any, name: str, start: Callable[[], Any]) -> Any:
    """Return the container *name*, which another run has started, or *start* does now.

    Args:
        api: The engine's client.
        name: What `name_of` returned.
        start: Starts it; of several runs that try at once the engine lets one.
    """
    from docker.errors import APIError, NotFound  # type: ignore[import-untyped]  # docker has no types

    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            container = api.containers.get(name)
            if container.status not in _ENDED:
                # One that was made and never started: its maker was killed in between. A second start does nothing.
                container.start()
                return container
            remove(container)
        except NotFound:
            pass
        try:
            return start()
        except APIError as error:
            if error.status_code != _CONFLICT:
                _remove_unstarted(api, name)
                raise
            # The engine gives a name away a moment before it knows the container, and back a moment after its end.
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)


def password_of(container: Any) -> str:
    """Return the password that the container was started with."""
    variables = dict(text.partition("=")[::2] for text in container.attrs["Config"]["Env"])
    return str(variables["POSTGRES_PASSWORD"])


def remove(container: Any) -> None:
    """Remove the container; one that is gone, or that another run removes, is no error."""
    from docker.errors import APIError

    with suppress(APIError):
        container.remove(force=True, v=True)


def collect(api: Any, spared: str, find: Callable[[Any], Address | None]) -> list[str]:
    """Remove containers that have ended or were not used for long; return their names.

    Args:
        api: The engine's client.
        spared: The name of one that stays in any case.
        find: Returns where the server of a container is reached; None if it is not.
    """
    removed = []
    for container in api.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
        if container.name != spared and (container.status in _ENDED or _is_old(find(container))):
            remove(container)
            removed.append(str(container.name))
    return removed


def _remove_unstarted(api: Any, name: str) -> None:
    from docker.errors import NotFound

    with suppress(NotFound):
        container = api.containers.get(name)
        if container.status == "created":
            remove(container)


def _is_old(address: Address | None) -> bool:
    if address is None:
        return False
    try:
        with connect(address, timeout=2.0) as connection:
            return leases.idle_seconds(connection) > LONGEST
    except (ConnectError, ServerError):
        return False
