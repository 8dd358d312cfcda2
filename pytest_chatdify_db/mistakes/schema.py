"""Mistakes in what the tests' database is made of: tables, models, migrations, the rows of the seed."""

from __future__ import annotations

import re
from typing import Final, Self

from pytest_chatdify_db.errors import ChatdifyDBError

#: What PostgreSQL says of an extension that is not installed: since version 15, and before.
_NO_EXTENSION: Final = re.compile(r'extension "[^"]+" is not available|could not open extension control file')
_SERVERS_WITH_EXTENSIONS: Final = (
    "take a server that has it: --chatdify-db-server=container, with --chatdify-db-image for an image that has it; "
    "those of PostgreSQL have what it calls contrib, the embedded binaries hardly any",
    "name one where it is installed: --chatdify-db-server=postgresql://user:password@host/postgres",
)


class SchemaError(ChatdifyDBError):
    """The tables cannot be found, or cannot be created."""

    @classmethod
    def not_importable(cls, path: str, cause: str) -> Self:
        """Say what the import of *path* raised."""
        return cls.compose(
            f"chatdify-db: the tables declared at {path!r} cannot be loaded.",
            cause=cause,
            fixes=[
                "name the object that holds your tables: --chatdify-db-metadata=module:attribute, or in the ini file "
                "chatdify_db_metadata = module:attribute",
                "let the module be found: run pytest from the project's root, or set pythonpath in the ini file",
                "override the fixture chatdify_db_metadata in conftest.py and return the Base or MetaData from it",
            ],
        )

    @classmethod
    def models_not_importable(cls, path: str, modules: str, cause: str) -> Self:
        """Say which of the *modules* with the models of *path* cannot be imported."""
        return cls.compose(
            f"chatdify-db: the models of {path!r} cannot be imported.",
            cause=cause,
            tried=[f"the modules that DB_MODELS names: {modules}"],
            fixes=[
                "name the modules that define your models: DB_MODELS=shop.models,shop.orders",
                "let them be found: run pytest from the project's root, or set pythonpath in the ini file",
                "name the object that holds your tables, if it is another one, in the ini file: "
                "chatdify_db_metadata = module:attribute",
            ],
        )

    @classmethod
    def fails_inside(cls, path: str, line: str, cause: str) -> Self:
        """Say which *line* raised while the module of *path*, which was found, was imported."""
        return cls.compose(
            f"chatdify-db: the tables declared at {path!r} cannot be loaded.",
            cause=f"{line} raises {cause}",
            fixes=[
                "correct that line; importing the module by itself shows all of it: "
                f"python -c 'import {path.partition(':')[0]}'",
                "name another object that holds your tables: --chatdify-db-metadata=module:attribute",
            ],
        )

    @classmethod
    def not_metadata(cls, path: str, found: str) -> Self:
        """Say what was found instead of a declarative Base or a MetaData."""
        return cls.compose(
            f"chatdify-db: {path!r} holds no tables.",
            cause=f"it is {found}, neither a declarative Base nor a sqlalchemy.MetaData",
            fixes=[
                "name a declarative Base, a MetaData, or a list of them: --chatdify-db-metadata=module:attribute",
                "override the fixture chatdify_db_metadata in conftest.py and return one of these",
            ],
        )

    @classmethod
    def no_tables(cls, path: str) -> Self:
        """Say that the models were probably not imported."""
        return cls.compose(
            f"chatdify-db: {path!r} has no tables.",
            cause="no model was imported that declares one, so the tests' database would be empty",
            fixes=[
                "import the modules with your models in conftest.py, or, with app.db, name them in DB_MODELS",
                "name the metadata that has them: --chatdify-db-metadata=module:attribute",
                "override the fixture chatdify_db_metadata in conftest.py, if the database is meant to be empty",
            ],
        )

    @classmethod
    def cannot_create(cls, what: str, cause: str) -> Self:
        """Say which table, index or type the server refused, and why."""
        return cls.compose(
            f"chatdify-db: {what} cannot be created in the tests' database.",
            cause=cause,
            fixes=[
                "correct its declaration",
                "create what it needs (an extension, a type, a schema) by an event listener for 'before_create' on its "
                "metadata",
                "build the schema by migrations: --chatdify-db-migrations=alembic.ini",
            ],
        )

    @classmethod
    def no_extension(cls, what: str, cause: str) -> Self:
        """Say that the server has no files of the extension that *what* names."""
        return cls.compose(
            f"chatdify-db: {what} cannot be created in the tests' database.",
            cause=cause,
            fixes=[*_SERVERS_WITH_EXTENSIONS, "correct its name, if it is another one"],
        )

    @classmethod
    def seed_failed(cls, cause: str) -> Self:
        """Say what the project's seed raised."""
        return cls.compose(
            "chatdify-db: the data of the fixture chatdify_db_seed cannot be stored.",
            cause=cause,
            fixes=[
                "correct the function that chatdify_db_seed returns: it is called once with a sqlalchemy.orm.Session "
                "on the database that all tests' databases are copies of",
            ],
        )

    @classmethod
    def no_alembic_ini(cls, path: str, *, is_directory: bool = False) -> Self:
        """Say that the option ``migrations`` names no file."""
        what = "missing"
        cause = (
            "there is no such file; a relative path starts at pytest's root directory, one of the command line at the "
            "current one"
        )
        if is_directory:
            what = "a directory"
            cause = "Alembic's configuration, which says where the migrations are, is a file"
        return cls.compose(
            f"chatdify-db: the tests' database cannot be built by migrations: {path} is {what}.",
            cause=cause,
            fixes=[
                "name the file: --chatdify-db-migrations=path/to/alembic.ini, or path/to/pyproject.toml",
                "remove the option, to create the tables from the metadata",
            ],
        )

    @classmethod
    def layer_hidden(cls, file: str) -> Self:
        """Say that the project's *file* hides the installed ``app.db``."""
        return cls.compose(
            "chatdify-db: app.db cannot be imported: the project's own package 'app' hides it.",
            cause=f"because of {file} Python looks for the modules of 'app' in that directory alone",
            fixes=[
                "remove this file: without it the project's modules lie beside the installed app.db",
                "do without app.db, if 'app' is meant to be another package: "
                "--chatdify-db-metadata=module:attribute names its tables",
            ],
        )

    @classmethod
    def no_alembic(cls) -> Self:
        """Say that the package is not installed."""
        return cls.compose(
            "chatdify-db: the tests' database cannot be built by migrations: Alembic is missing.",
            cause="the package 'alembic' is not installed in the environment that runs pytest",
            fixes=["pip install alembic", "remove the option migrations, to create the tables from the metadata"],
        )

    @classmethod
    def migration_failed(cls, config: str, revision: str, file: str, cause: str, output: str) -> Self:
        """Say which migration failed, and why; without a *revision*, that Alembic did not get to one."""
        what = f"the migration {revision} failed ({file})" if revision else "the migrations cannot be run"
        return cls.compose(
            f"chatdify-db: {what}.",
            cause=cause,
            tried=[
                f"alembic -c {config} upgrade heads, on an empty database",
                *([f"its output ended in:\n{output}"] if output else []),
            ],
            fixes=[
                *(_SERVERS_WITH_EXTENSIONS if _NO_EXTENSION.search(cause) else ()),
                "correct the migration" if revision else "correct env.py or its configuration",
                "let env.py take the database from DATABASE_URL or from sqlalchemy.url: both name the one to migrate",
            ],
        )

    @classmethod
    def cannot_compare(cls, config: str, cause: str, output: str) -> Self:
        """Say why models and migrations cannot be compared."""
        return cls.compose(
            "chatdify-db: the migrations cannot be compared with the models.",
            cause=cause,
            tried=[f"alembic -c {config} check", *([f"its output ended in:\n{output}"] if output else [])],
            fixes=["let env.py give the models' metadata to context.configure(target_metadata=...)"],
        )

    @classmethod
    def migrations_differ(cls, difference: str) -> Self:
        """Show the migration that is missing."""
        return cls.compose(
            "chatdify-db: the migrations do not make what the models declare.",
            cause=f"this migration is missing:\n{difference}",
            fixes=[
                "write it:  alembic revision --autogenerate -m '...'",
                "correct the models",
                "leave out what the models do not own, by include_object or include_name in env.py",
            ],
        )
