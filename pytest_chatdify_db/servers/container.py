"""A PostgreSQL server in a container of the local Docker engine, by testcontainers."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.run import Run
from pytest_chatdify_db.servers import engine
from pytest_chatdify_db.servers.base import Progress, ProviderName, Server


@dataclass(frozen=True, slots=True)
class Container:
    """The provider.

    Args:
        image: The image to run.
        reason: Why it was chosen.
    """

    image: str
    reason: str

    @property
    def name(self) -> ProviderName:
        """See `Provider.name`."""
        return "container"

    def start(self, run: Run, progress: Progress) -> Server:
        """See `Provider.start`."""
        place = engine.endpoint()
        engine.require(place)
        raise ServerUnavailable.no_engine(place, "containers are not supported yet")
