"""The project's tables: found by their path, told apart by the DDL they compile to, created in an empty database.

The only room of the plugin that reads the application's metadata. It connects to the server directly, because what is
built here is copied for the tests.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy
from sqlalchemy import MetaData, create_engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from pytest_chatdify_db import traces
from pytest_chatdify_db.contents import declared, sources
from pytest_chatdify_db.databases.templates import Recipe
from pytest_chatdify_db.errors import TemplateFailed
from pytest_chatdify_db.mistakes.schema import SchemaError
from pytest_chatdify_db.postgres.address import Address

#: What a project returns from ``chatdify_db_seed``: stores the rows that every test starts with.
Seed = Callable[[Session], object]

#: What decides, beside the project, on what a template holds. The first part is raised when its making changes.
_ENVIRONMENT: Final = ("2", sqlalchemy.__version__, ".".join(map(str, sys.version_info[:2])))

_FOUNDATION: Final = "app.db:Base"
_CREATED: Final = re.compile(
    r"\s*CREATE\s+(?:UNIQUE\s+)?(\w+)\s+(?:CONCURRENTLY\s+)?(?:IF NOT EXISTS\s+)?(\S+)", re.IGNORECASE
)
_DISK_FULL: Final = "53100"
#: What CREATE EXTENSION says of an unknown name: undefined_file, or since PostgreSQL 15 feature_not_supported.
_NO_FILES: Final = ("58P01", "0A000")


def load(paths: Iterable[str]) -> tuple[MetaData, ...]:
    """Import the metadata at each ``module:attribute``; the project's models first, where the layer can find them.

    Raises:
        SchemaError: A path cannot be imported, or is neither a declarative Base nor a MetaData.
    """
    found: list[MetaData] = []
    for path in paths:
        value = _imported(path)
        if path == _FOUNDATION:
            _import_models(path)
        found.extend(metadata_of(value, path))
    return _distinct(found)


def metadata_of(value: object, path: str) -> tuple[MetaData, ...]:
    """Return the MetaData of a declarative Base, a MetaData, or a collection of them.

    Args:
        value: What the project named.
        path: How messages call it.

    Raises:
        SchemaError: It is none of these.
    """
    if isinstance(value, MetaData):
        return (value,)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _distinct(metadata for member in value for metadata in metadata_of(member, path))
    metadata = getattr(value, "metadata", None)
    if not isinstance(metadata, MetaData):
        raise SchemaError.not_metadata(path, f"{type(value).__name__} {value!r}"[:200])
    return (metadata,)


def table_count(metadatas: Iterable[MetaData]) -> int:
    """Return the number of tables."""
    return sum(len(metadata.tables) for metadata in metadatas)


def recipe(metadatas: Iterable[MetaData], seed: Seed | None, *, unknown: str) -> Recipe:
    """Return how a template with these tables and the seed's rows is made.

    Args:
        metadatas: Whose tables are created.
        seed: Stores rows in them; None for none.
        unknown: What stands for an input that cannot be told from another; it has to differ from run to run.
    """
    metadatas = tuple(metadatas)
    parts = [*_ENVIRONMENT, *_declared(metadatas, unknown), *(() if seed is None else sources.describe(seed, unknown))]
    return Recipe.of(parts, lambda address: build(address, metadatas, seed), unknown=unknown)


def build(address: Address, metadatas: Iterable[MetaData], seed: Seed | None) -> set[str]:
    """Create the schemas and tables, then the seed's rows, in the empty database at *address*.

    Returns:
        The paths of the files that the seed has read.

    Raises:
        SchemaError: The server refuses a table, or the seed raises; the text names which, and the server's words.
        TemplateFailed: The server's disk is full.
    """
    engine = create_engine(address.url("postgresql+psycopg2"), poolclass=NullPool)
    try:
        with _full_disks():
            with engine.begin() as connection:
                for metadata in metadatas:
                    _create(connection, metadata)
            return set() if seed is None else _plant(seed, Session(engine))
    finally:
        engine.dispose()


def plant(address: Address, seed: Seed) -> set[str]:
    """Store the seed's rows in the database at *address*, as `build` does."""
    engine = create_engine(address.url("postgresql+psycopg2"), poolclass=NullPool)
    try:
        with _full_disks():
            return _plant(seed, Session(engine))
    finally:
        engine.dispose()


def _imported(path: str) -> object:
    module, _, attributes = path.partition(":")
    try:
        value: object = importlib.import_module(module)
        for attribute in attributes.split("."):
            value = getattr(value, attribute)
    except Exception as error:
        raise _load_error(path, error) from error
    return value


def _load_error(path: str, error: Exception) -> SchemaError:
    """Return the error for what an import raised, with the project's line that raised it, if it got that far."""
    line = _line_of_project(error)
    if line is None:
        return SchemaError.not_importable(path, _words(error) + _meant(error))
    return SchemaError.fails_inside(path, line, _words(error))


def _meant(error: Exception) -> str:
    """Return what is probably meant by a name that is not there; empty if nothing is like it."""
    names = dir(error.obj) if isinstance(error, AttributeError) else ()
    near = difflib.get_close_matches(str(getattr(error, "name", "")), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _line_of_project(error: Exception) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{frame.filename}:{frame.lineno}" for frame in frames if _is_of_project(frame.filename)]
    return lines[-1] if lines else None


def _is_of_project(filename: str) -> bool:
    """Whether a file is the project's; ours may lie beside it, where they are installed to be edited."""
    ours = Path(__file__).parents[2]
    own = (ours / "pytest_chatdify_db", ours / "app" / "db")
    return traces.is_of_project(filename) and not any(map(Path(filename).is_relative_to, own))


def _import_models(path: str) -> None:
    import_models = getattr(sys.modules["app.db"], "import_models", None)
    if import_models is None:
        return
    try:
        import_models()
    except Exception as error:
        config = sys.modules["app.config"]
        if isinstance(error, config.ConfigurationError):
            raise SchemaError(str(error)) from error
        if _line_of_project(error) is not None:
            raise _load_error(path, error) from error
        modules = config.get_settings().DB_MODELS
        raise SchemaError.models_not_importable(path, modules, _words(error)) from error


def _distinct(metadatas: Iterable[MetaData]) -> tuple[MetaData, ...]:
    return tuple(dict.fromkeys(metadatas))


def _declared(metadatas: Iterable[MetaData], unknown: str) -> list[str]:
    try:
        return declared.texts(metadatas, unknown)
    except SQLAlchemyError as error:
        raise SchemaError.cannot_create("the schema", _words(error)) from error


def _create(connection: Connection, metadata: MetaData) -> None:
    schemas: Sequence[str] = sorted({table.schema for table in metadata.tables.values() if table.schema})
    try:
        for schema in schemas:
            connection.execute(CreateSchema(schema, if_not_exists=True))
        metadata.create_all(connection)
    except DBAPIError as error:
        subject = _subject(error.statement)
        is_missing = subject.startswith("the extension ") and getattr(error.orig, "pgcode", None) in _NO_FILES
        mistake = SchemaError.no_extension if is_missing else SchemaError.cannot_create
        raise mistake(subject, _words(error.orig or error)) from error
    except SQLAlchemyError as error:
        raise SchemaError.cannot_create("the schema", _words(error)) from error


def _plant(seed: Seed, session: Session) -> set[str]:
    try:
        with traces.watched() as files, session:
            _refuse_unrun(seed(session))
            session.commit()
    except Exception as error:
        raise SchemaError.seed_failed(_words(error)) from error
    return files


def _refuse_unrun(returned: object) -> None:
    """Refuse a seed of which nothing has run yet: its rows would be missing, and no later run would build again."""
    if isinstance(returned, Coroutine):
        returned.close()
        raise TypeError("the function is 'async def', and is called without an event loop; write it with 'def'")
    if isinstance(returned, Generator | AsyncGenerator):
        raise TypeError("the function yields, so that a call runs nothing of it; write it without 'yield'")


@contextmanager
def _full_disks() -> Iterator[None]:
    """Have a disk without space be told as such: neither the tables nor the seed are at fault."""
    try:
        yield
    except SchemaError as error:
        refused = getattr(error.__cause__, "orig", None)
        if getattr(refused, "pgcode", None) != _DISK_FULL:
            raise
        raise TemplateFailed.disk_full(str(refused).strip()) from error.__cause__


def _subject(statement: str | None) -> str:
    match = _CREATED.match(statement or "")
    return f"the {match[1].lower()} {match[2]}" if match else "the schema"


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()}"
