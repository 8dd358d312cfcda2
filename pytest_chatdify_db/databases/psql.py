"""Commands that open a database with ``psql``, to be pasted into a shell; a password is in a file, never in them."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Final

from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.servers.run import Run

#: By this name the sandbox knows a connection that is not the application's.
_APPLICATION: Final = "pytest-psql"


def command(address: Address, passfile: Path | None = None, program: str | None = None) -> str:
    """Return the command that opens the database at *address*.

    Args:
        address: The database.
        passfile: Where the password is; None to have psql ask if there is one.
        program: The path of psql; default is where it is found.
    """
    parameters = {
        "host": address.host,
        "port": str(address.port),
        "user": address.user,
        "dbname": address.database,
        "application_name": _APPLICATION,
        **({} if passfile is None else {"passfile": str(passfile)}),
        **{name: value for name, value in address.options if name != "sslpassword"},
    }
    text = " ".join(f"{name}={_quoted(value)}" for name, value in parameters.items())
    return shlex.join([program or _program(), text])


def write_passfile(run: Run, name: str, address: Address) -> Path | None:
    """Write the file *name* of *run*, with the password for every database of the server; None if there is none."""
    if address.password is None:
        return None
    fields = (address.host, str(address.port), "*", address.user, address.password)
    # Only the star that stands for any database is not quoted: no name of ours is one.
    return run.write(name, ":".join(field.replace("\\", "\\\\").replace(":", "\\:") for field in fields) + "\n")


def _quoted(value: str) -> str:
    """Return *value* as libpq reads it in a connection string."""
    if value and not any(character in " '\\" for character in value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _program() -> str:
    """Return how to call psql: by name where the shell finds it, else by the path of one beside a server's programs."""
    if shutil.which("psql"):
        return "psql"
    from pytest_chatdify_db.servers import binaries

    programs = (each.directory / "psql" for each in binaries.installations())
    return next((str(path) for path in programs if path.exists()), "psql")
