"""Template databases: built once for a run, cloned for every worker and for every test that wants its own.

A template gets its name and its seal at the very end of its making, so one that can be found is complete. What failed
half-way has another name, and is dropped before the next try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pytest_chatdify_db import admin, naming
from pytest_chatdify_db.errors import TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import ConnectError, Connection, ServerError, connect
from pytest_chatdify_db.run import Run
from pytest_chatdify_db.servers.base import Progress, Server


def ensure(server: Server, fingerprint: str, build: Callable[[Address], None], *, run: Run, progress: Progress) -> str:
    """Return the name of the template for *fingerprint*; the first process of the run that asks builds it.

    Args:
        server: Where.
        fingerprint: Stands for all that *build* depends on.
        build: Fills the empty database whose address it gets. It has to close its connections; its errors pass.
        run: The run that the template belongs to.
        progress: Takes lines of news.

    Raises:
        TemplateFailed: The server refuses to make the database.
    """
    name, draft = naming.template_name(run.id, fingerprint), naming.draft_name(run.id, fingerprint)
    with run.lock(f"template-{fingerprint}"):
        with _administration(server, name) as connection:
            if admin.is_sealed(connection, name):
                return name
            progress("building the template database")
            for leftover in (draft, name):
                admin.drop_database(connection, leftover)
            admin.create_database(connection, draft, strategy=_strategy(server))
        try:
            build(server.address.with_database(draft))
            with _administration(server, name) as connection:
                _finish(connection, draft, name)
        except BaseException:
            with suppress(TemplateFailed), _administration(server, name) as connection:
                admin.drop_database(connection, draft)
            raise
    return name


def clone(server: Server, template: str, name: str) -> Address:
    """Make the database *name* as a copy of *template* and return its address.

    Args:
        server: Where both are.
        template: What `ensure` returned.
        name: The new database; one of that name, left by a worker that died, is dropped first.

    Raises:
        TemplateFailed: The server refuses.
    """
    with _administration(server, name) as connection:
        try:
            admin.create_database(connection, name, template=template, strategy=_strategy(server))
        except ServerError as error:
            if error.sqlstate != admin.DUPLICATE_DATABASE:
                raise
            admin.drop_database(connection, name)
            admin.create_database(connection, name, template=template, strategy=_strategy(server))
    return server.address.with_database(name)


def drop(server: Server, name: str) -> None:
    """Drop the database *name* and end the sessions on it.

    Raises:
        TemplateFailed: The server refuses or is gone.
    """
    with _administration(server, name) as connection:
        admin.drop_database(connection, name)


def drop_all(server: Server, run: Run) -> list[str]:
    """Drop every database that *run* made on *server*, and nothing else; return their names.

    Needed for a server that outlives the run; one that the plugin started vanishes as a whole.

    Raises:
        TemplateFailed: The server refuses or is gone.
    """
    with _administration(server, naming.run_prefix(run.id)) as connection:
        names = admin.databases(connection, naming.run_prefix(run.id))
        for name in names:
            admin.drop_database(connection, name)
    return names


def _finish(connection: Connection, draft: str, name: str) -> None:
    """Give the draft its name and, last, its seal."""
    if not admin.await_quiet(connection, draft):
        raise TemplateFailed.still_in_use(draft, "\n".join(admin.sessions(connection, draft)))
    admin.rename_database(connection, draft, name)
    admin.seal(connection, name)


def _strategy(server: Server) -> admin.Strategy:
    return "file_copy" if server.fsync_off else "wal_log"


@contextmanager
def _administration(server: Server, name: str) -> Iterator[Connection]:
    """Give a connection to the maintenance database; an error on it says that it was about the database *name*."""
    try:
        with connect(server.address) as connection:
            yield connection
    except (ConnectError, ServerError) as error:
        raise TemplateFailed.refused(name, str(server.address), str(error)) from None
