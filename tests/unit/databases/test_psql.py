"""Commands that open a database."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path

import psycopg2.extensions
import pytest

from pytest_chatdify_db.databases import psql
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.servers import binaries
from pytest_chatdify_db.servers.binaries import Binaries
from pytest_chatdify_db.servers.run import Run


@pytest.mark.parametrize("odd", ["plain", "with space", "it's", "back\\slash", ""])
def test_command(odd: str) -> None:
    """Whatever the names hold, libpq reads the same ones after a shell has; the password is not among them."""
    address = Address("127.0.0.1", 5433, "me", "hidden", odd, (("sslmode", "require"), ("sslpassword", "hidden too")))

    program, conninfo = shlex.split(psql.command(address, Path("/run/a file"), "psql"))

    assert program == "psql"
    assert psycopg2.extensions.parse_dsn(conninfo) == {
        "host": "127.0.0.1",
        "port": "5433",
        "user": "me",
        "dbname": odd,
        "application_name": "pytest-psql",
        "passfile": "/run/a file",
        "sslmode": "require",
    }


def test_passfile(tmp_path: Path) -> None:
    """The password stands in a file that its user alone can read, as libpq reads it; without one there is no file."""
    run = Run.create(tmp_path)
    try:
        path = psql.write_passfile(run, "pgpass", Address("::1", 5433, "me", "a:b\\c"))

        assert path is not None
        assert path.read_text() == "\\:\\:1:5433:*:me:a\\:b\\\\c\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert psql.write_passfile(run, "none", Address("/run")) is None
    finally:
        run.close()


def test_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the shell finds no psql, the one beside a server's programs is named by its path, if there is one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "installations", lambda: [Binaries(tmp_path / "bin", "here")])
    address = Address("/run")

    assert psql.command(address).startswith("psql ")

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "psql").touch()

    assert psql.command(address).startswith(f"{tmp_path}/bin/psql ")

    (tmp_path / "psql").touch(mode=0o755)

    assert psql.command(address).startswith("psql ")
