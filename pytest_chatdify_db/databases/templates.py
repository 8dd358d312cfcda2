"""Template databases: built once for their inputs, cloned for every worker and for every test that wants its own.

A template gets its name and its seal at the very end of its making, so one that can be found is complete. What failed
half-way has another name, and is dropped before the next try.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pytest_chatdify_db import naming, traces
from pytest_chatdify_db.errors import TemplateFailed
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ConnectError, ServerError
from pytest_chatdify_db.servers import admin, archives, leases
from pytest_chatdify_db.servers.base import Progress, Server, Store
from pytest_chatdify_db.servers.leases import Note
from pytest_chatdify_db.servers.run import Run

#: What a server has before anything is created on it.
_INITIAL: Final = frozenset({"postgres", "template0", "template1"})

#: Stands for the run in the name of a template on a server that is the run's alone.
_MANAGED: Final = "managed"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a template is made.

    Args:
        fingerprint: Stands for all that *build* is known to depend on.
        build: Fills the empty database whose address it gets, and returns the paths of the files that it has read. It
            has to close its connections; its errors pass.
        fits_once: Whether *fingerprint* is one that no other run will have.
    """

    fingerprint: str
    build: Callable[[Address], Iterable[str]]
    fits_once: bool = False

    @classmethod
    def of(cls, parts: Sequence[str], build: Callable[[Address], Iterable[str]], *, unknown: str) -> Self:
        """Return the recipe that depends on *parts*, in some of which *unknown* may stand for what cannot be told."""
        return cls(naming.fingerprint(parts), build, any(unknown in part for part in parts))


def ensure(server: Server, recipe: Recipe, *, run: Run, progress: Progress, lease: Connection | None = None) -> str:
    """Return the name of the template for *recipe*; the first process that asks builds it, and others wait for it.

    Args:
        server: Where.
        recipe: How it is made.
        run: The run that asks.
        progress: Takes lines of news.
        lease: A session on a server that outlives the run. The template stays there for later runs, claimed by this
            session while it lasts. None for a template that ends with the run or with its server.

    Raises:
        TemplateFailed: The server refuses to make the database.
    """
    inputs = _inputs(server, recipe.fingerprint)
    with run.lock("template"):
        if lease is not None:
            return _ensure_kept(server, recipe, inputs, run, progress, lease)
        # Without the run's id where the server's data may be kept, and come back in another run.
        name = (
            naming.kept_template_name(inputs, _MANAGED) if server.is_managed else naming.template_name(run.id, inputs)
        )
        with _administration(server, name) as connection:
            if _is_valid(connection, name):
                return name
        is_lasting = _build(server, recipe, name, run, progress)
        if server.store is not None and server.store.template == recipe.fingerprint and is_lasting:
            _keep(server, server.store, name)
    return name


def copy_managed(server: Server, fingerprint: str, name: str, run: Run) -> tuple[str, Address] | None:
    """Do what `ensure` and `clone` do, if nothing has to be built, on a server that the plugin has started.

    Args:
        server: Where.
        fingerprint: The recipe's.
        name: The new database.
        run: The run that asks.

    Returns:
        The name of the template and the address of its copy; None if there is no such template.

    Raises:
        TemplateFailed: The server refuses.
    """
    template = naming.kept_template_name(_inputs(server, fingerprint), _MANAGED)
    with _administration(server, name) as connection:
        with run.lock("template"):
            if not _is_valid(connection, template):
                return None
        _clone(connection, server, template, name)
    return template, server.address.with_database(name)


def _inputs(server: Server, fingerprint: str) -> str:
    return naming.fingerprint([server.version, fingerprint])


def _is_valid(connection: Connection, name: str) -> bool:
    """Return whether the template *name* is there as a whole, and the files that it was made from are as they were."""
    note = Note.from_text(admin.comments(connection, name).get(name, ""))
    return note is not None and admin.is_sealed(connection, name) and traces.holds(note.files)


def _ensure_kept(server: Server, recipe: Recipe, inputs: str, run: Run, progress: Progress, lease: Connection) -> str:
    name = naming.kept_template_name(inputs, run.id)
    try:
        found = leases.find_template(lease, inputs)
        if found is not None:
            return found
        progress("waiting for another run that builds the template database")
        with admin.advisory_lock(lease, naming.kept_template_name(inputs, "")):
            found = leases.find_template(lease, inputs)
            if found is not None:
                return found
            admin.share_lock(lease, name)
            _build(server, recipe, name, run, progress)
    except ServerError as error:
        raise TemplateFailed.refused(name, str(server.address), str(error)) from None
    return name


def _build(server: Server, recipe: Recipe, name: str, run: Run, progress: Progress) -> bool:
    """Build the template *name*; return whether it would survive a crash of the server as it is."""
    progress("building the template database")
    draft = naming.draft_name(run.id, recipe.fingerprint)
    with _administration(server, name) as connection:
        for leftover in (draft, name):
            admin.drop_database(connection, leftover)
        admin.create_database(connection, draft, strategy=_strategy(server))
        admin.comment(connection, draft, Note().to_text())
    try:
        address = server.address.with_database(draft)
        files = traces.manifest(recipe.build(address))
        with connect(address) as connection:
            is_lasting = not admin.has_unlogged_tables(connection)
        with _administration(server, name) as connection:
            _finish(connection, draft, name, files)
    except BaseException:
        with suppress(TemplateFailed), _administration(server, name) as connection:
            admin.drop_database(connection, draft)
        raise
    return is_lasting


def _keep(server: Server, store: Store, name: str) -> None:
    """Keep the data of *server* for later runs, while nothing is in it but the template *name*.

    Its files are copied while it runs. They are complete after a checkpoint, and stay as they are as long as no session
    writes: the caller holds the lock under which templates are made, and without one there is no database to write to.
    A server that starts on the copy recovers as after a crash, which empties unlogged tables.
    """
    with _administration(server, name) as connection:
        if set(admin.databases(connection, "")) != {*_INITIAL, name}:
            return
        connection.query("CHECKPOINT")
        if archives.keep(Path(store.data), Path(store.entry)):
            archives.collect(Path(store.entry))


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
        _clone(connection, server, template, name)
    return server.address.with_database(name)


def _clone(connection: Connection, server: Server, template: str, name: str) -> None:
    try:
        admin.create_database(connection, name, template=template, strategy=_strategy(server))
    except ServerError as error:
        if error.sqlstate != admin.DUPLICATE_DATABASE:
            raise
        admin.drop_database(connection, name)
        admin.create_database(connection, name, template=template, strategy=_strategy(server))
    if not server.is_managed:
        admin.comment(connection, name, Note().to_text())


def open_lease(server: Server, run: Run) -> Connection:
    """Return a session that claims what *run* makes on a server that outlives it, and collect what dead runs left.

    Raises:
        TemplateFailed: The server refuses or is gone.
    """
    try:
        connection = connect(server.address, application_name="chatdify-db lease")
        leases.claim_run(connection, run.id)
        leases.collect(connection)
    except (ConnectError, ServerError) as error:
        raise TemplateFailed.refused(naming.run_prefix(run.id), str(server.address), str(error)) from None
    return connection


def drop(server: Server, name: str) -> None:
    """Drop the database *name* and end the sessions on it.

    Raises:
        TemplateFailed: The server refuses or is gone.
    """
    with _administration(server, name) as connection:
        admin.drop_database(connection, name)


def drop_all(server: Server, run: Run) -> list[str]:
    """Drop every database that *run* made for itself on *server*, and nothing else; return their names.

    Needed for a server that outlives the run; one that the plugin started vanishes as a whole.

    Raises:
        TemplateFailed: The server refuses or is gone.
    """
    with _administration(server, naming.run_prefix(run.id)) as connection:
        names = admin.databases(connection, naming.run_prefix(run.id))
        for name in names:
            admin.drop_database(connection, name)
    return names


def _finish(connection: Connection, draft: str, name: str, files: Mapping[str, str]) -> None:
    """Give the draft its note, its name and, last, its seal."""
    if not admin.await_quiet(connection, draft):
        raise TemplateFailed.still_in_use(draft, "\n".join(admin.sessions(connection, draft)))
    leases.touch(connection, draft, files)
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
