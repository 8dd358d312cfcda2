"""PostgreSQL servers for a test run: one call gives one that is ready, whatever this machine has.

The first process of a run that asks starts the server and the others of the run get the same one; a failure is shared
in the same way, so nobody waits for it twice.
"""

from __future__ import annotations

from contextlib import suppress

from pytest_chatdify_db.errors import ServerUnavailable
from pytest_chatdify_db.servers.base import NO_WISH, Progress, Provider, ProviderName, Server, Wish
from pytest_chatdify_db.servers.run import Run, collect_abandoned

__all__ = ["Progress", "Provider", "ProviderName", "Server", "Wish", "is_quick", "start"]

_READY = "server.json"
_FAILED = "server.failed"


def start(choice: str, *, image: str, run: Run, progress: Progress, template: Wish = NO_WISH) -> Server:
    """Return the server of *run*, and start it if this is the first call for the run in any process.

    Args:
        choice: ``auto``, ``container``, ``embedded`` or the URL of a server.
        image: The image of a container.
        run: The run that the server belongs to, and ends with.
        progress: Takes lines of news.
        template: What is going to be needed of it: a server on this machine may come with it.

    Raises:
        ServerUnavailable: No server; the text names everything that was tried.
    """
    with run.lock("server"):
        with suppress(FileNotFoundError):
            return Server.from_json((run.directory / _READY).read_text())
        with suppress(FileNotFoundError):
            raise ServerUnavailable.failed_before((run.directory / _FAILED).read_text(encoding="utf-8"))
        collect_abandoned()
        try:
            server = _start(choice, image, template, run, progress)
        except ServerUnavailable as error:
            run.write(_FAILED, str(error))
            raise
        run.write(_READY, server.to_json())
        return server


def is_quick(choice: str) -> bool:
    """Return whether the server of this *choice* takes programs of this machine and a moment: no image is pulled."""
    if choice != "auto":
        return choice == "embedded"
    from pytest_chatdify_db.servers import engine

    try:
        engine.require(engine.endpoint())
    except ServerUnavailable:
        return True
    return False


def _start(choice: str, image: str, template: Wish, run: Run, progress: Progress) -> Server:
    if choice != "auto":
        return _provider(choice, image, template, "as asked for").start(run, progress)
    failures: list[tuple[str, ServerUnavailable]] = []
    for name in ("container", "embedded"):
        reason = "; ".join([f"no {other}: {error.cause.splitlines()[0]}" for other, error in failures])
        try:
            return _provider(name, image, template, reason or "the first choice").start(run, progress)
        except ServerUnavailable as error:
            failures.append((name, error))
    raise ServerUnavailable.nothing_left(failures)


def _provider(choice: str, image: str, template: Wish, reason: str) -> Provider:
    if choice == "container":
        from pytest_chatdify_db.servers.container import Container

        return Container(image, reason, template.stays)
    if choice == "embedded":
        from pytest_chatdify_db.servers.embedded import Embedded

        return Embedded(reason, template)
    from pytest_chatdify_db.servers.external import External

    return External(choice, reason)
