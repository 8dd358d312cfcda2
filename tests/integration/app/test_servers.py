"""Real servers of every kind: TLS with and without proof, clients' certificates, sockets, several hosts, PgBouncer."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from .servers import Postgres, Workshop, accepts, free_port, program, run_python

pytestmark = pytest.mark.needs("initdb", "openssl")

_BOTH = """
import asyncio
from sqlalchemy import text
from app.db import get_async_session, get_sync_session, sync_engine

async def main(sql):
    async with get_async_session() as session:
        return await session.scalar(sql)

def both(sql):
    with get_sync_session() as session:
        first = session.scalar(text(sql))
    sync_engine.dispose()
    return [first, asyncio.run(main(text(sql)))]
"""
_IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def ask(server: Postgres, sql: str, environment: dict[str, str]) -> str:
    """Return what both drivers read for *sql*."""
    return run_python(f"{_BOTH}\nprint(both({sql!r}))", environment)


def failure(environment: dict[str, str]) -> list[str]:
    """Return the text of the error that each driver ends with."""
    code = f"""{_BOTH}
def text_of(run):
    try:
        return f"connected: {{run()}}"
    except Exception as error:
        return f"{{type(error).__name__}}: {{str(error).splitlines()[0]}}"

def in_sync():
    with get_sync_session() as session:
        return session.scalar(text("SELECT 1"))
print(text_of(in_sync))
print(text_of(lambda: asyncio.run(main(text("SELECT 1")))))
"""
    return run_python(code, environment).splitlines()


def url(
    server: Postgres, query: str, *, user: str = "postgres", host: str = "localhost", database: str = "postgres"
) -> dict[str, str]:
    """Return the environment that names *server* by URL."""
    password = "" if user == "carla" else f":{quote(server.password, safe='')}"
    return {"DATABASE_URL": f"postgresql://{user}{password}@{host}:{server.port}/{database}{query}"}


def test_parts(own_postgres: Postgres) -> None:
    """A password with every kind of special character works from parts, with both drivers."""
    assert ask(own_postgres, "SELECT current_user", own_postgres.parts()) == "['postgres', 'postgres']"


@pytest.mark.parametrize(("mode", "encrypted"), [("disable", False), ("prefer", True), ("require", True)])
def test_sslmode(own_postgres: Postgres, mode: str, encrypted: bool) -> None:
    """``sslmode`` decides for both drivers whether the connection is encrypted."""
    found = ask(own_postgres, _IS_ENCRYPTED, url(own_postgres, f"?sslmode={mode}"))

    assert found == str([encrypted, encrypted])


def test_verify_full(own_postgres: Postgres) -> None:
    """``verify-full`` accepts the right authority and name with both drivers."""
    query = f"?sslmode=verify-full&sslrootcert={own_postgres.directory}/ca.crt"

    assert ask(own_postgres, _IS_ENCRYPTED, url(own_postgres, query)) == "[True, True]"


def test_verify_full_refuses_another_name(own_postgres: Postgres) -> None:
    """``verify-full`` refuses a server whose certificate is for another name, with both drivers."""
    query = f"?sslmode=verify-full&sslrootcert={own_postgres.directory}/ca.crt"

    for text in failure(url(own_postgres, query, host="127.0.0.1")):
        assert "connected" not in text
        assert own_postgres.password not in text


def test_verify_ca_refuses_another_authority(own_postgres: Postgres) -> None:
    """``verify-ca`` refuses a certificate of an authority that is not the one named, with both drivers."""
    query = f"?sslmode=verify-ca&sslrootcert={own_postgres.directory}/client.crt"

    for text in failure(url(own_postgres, query)):
        assert "connected" not in text


def test_client_certificate(own_postgres: Postgres) -> None:
    """A role that logs in with a certificate does so with both drivers."""
    directory = own_postgres.directory
    query = f"?sslmode=require&sslcert={directory}/client.crt&sslkey={directory}/client.key"

    assert ask(own_postgres, "SELECT current_user", url(own_postgres, query, user="carla")) == "['carla', 'carla']"


def test_wrong_password_is_not_shown(own_postgres: Postgres) -> None:
    """A refused password is in neither driver's error."""
    wrong = {**own_postgres.parts(), "POSTGRES_PASSWORD": "s3cr3t-wrong"}

    texts = failure(wrong)

    assert all("password authentication failed" in text for text in texts)
    assert not any("s3cr3t-wrong" in text for text in texts)


def test_several_hosts(own_postgres: Postgres) -> None:
    """With several hosts both drivers find the one that is up and writable."""
    down = free_port()
    environment = {
        "DATABASE_URL": (
            f"postgresql://postgres:{quote(own_postgres.password, safe='')}"
            f"@127.0.0.1:{down},127.0.0.1:{own_postgres.port}/postgres?target_session_attrs=read-write"
        )
    }

    assert ask(own_postgres, "SELECT 1", environment) == "[1, 1]"


# Connections over a socket have no address.
_PEER = "SELECT coalesce(host(inet_client_addr()), 'socket') || ' ' || current_user"


def test_unix_socket(own_postgres: Postgres) -> None:
    """A socket directory, in DB_HOST or in each notation of a URL, leads both drivers to the server, by password."""
    directory, port = own_postgres.directory, own_postgres.port
    password = quote(own_postgres.password, safe="")
    for environment in (
        {**own_postgres.parts(), "DB_HOST": str(directory)},
        {"DATABASE_URL": f"postgresql://postgres:{password}@/postgres?host={directory}&port={port}"},
        {"DATABASE_URL": f"postgresql://postgres:{password}@{quote(str(directory), safe='')}:{port}/postgres"},
    ):
        assert ask(own_postgres, _PEER, environment) == "['socket postgres', 'socket postgres']"


def test_socket_among_several_hosts(own_postgres: Postgres) -> None:
    """A socket may be one of several hosts, whether the first of them is down or not, with both drivers."""
    password = quote(own_postgres.password, safe="")
    hosts = f"host=127.0.0.1:{free_port()}&host={own_postgres.directory}:{own_postgres.port}"

    found = ask(
        own_postgres,
        _PEER,
        {"DATABASE_URL": f"postgresql://postgres:{password}@/postgres?{hosts}&target_session_attrs=read-write"},
    )

    assert found == "['socket postgres', 'socket postgres']"


def test_session_settings(own_postgres: Postgres) -> None:
    """Application name, statement timeout and the URL's ``options`` reach the server with both drivers."""
    environment = {
        **url(own_postgres, "?options=-c%20work_mem%3D7MB"),
        "DB_APPLICATION_NAME": "shop",
        "DB_STATEMENT_TIMEOUT_MS": "1234",
    }
    sql = "SELECT concat_ws(' ', " + ", ".join(
        f"current_setting('{name}')" for name in ("application_name", "statement_timeout", "work_mem")
    )

    assert ask(own_postgres, f"{sql})", environment) == "['shop 1234ms 7MB', 'shop 1234ms 7MB']"


def test_replica(own_postgres: Postgres) -> None:
    """Read-only sessions go to DATABASE_REPLICA_URL, the others to DATABASE_URL."""
    own_postgres.execute("CREATE DATABASE replica")
    try:
        environment = {
            **url(own_postgres, ""),
            "DATABASE_REPLICA_URL": url(own_postgres, "", database="replica")["DATABASE_URL"],
        }
        code = """
import asyncio
from sqlalchemy import text
from app.db import (dispose_engines, get_readonly_session, get_sync_readonly_session, get_sync_session)
SQL = text("SELECT current_database() || ' ' || current_setting('transaction_read_only')")
async def main():
    async for session in get_readonly_session():
        print(await session.scalar(SQL))
    await dispose_engines()
with get_sync_readonly_session() as session:
    print(session.scalar(SQL))
with get_sync_session() as session:
    print(session.scalar(SQL))
asyncio.run(main())
"""
        assert run_python(code, environment) == "replica on\npostgres off\nreplica on"
    finally:
        own_postgres.execute("DROP DATABASE replica WITH (FORCE)")


@pytest.fixture
def pgbouncer(own_postgres: Postgres, workshop: Workshop) -> int:
    """Give the port of a PgBouncer in transaction mode with two connections to the server."""
    port = free_port()
    workshop.write("users.txt", f'"postgres" "{own_postgres.password}"\n')
    configuration = workshop.write(
        "pgbouncer.ini",
        f"""[databases]
postgres = host=127.0.0.1 port={own_postgres.port} dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = users.txt
pool_mode = transaction
default_pool_size = 2
""",
    )
    workshop.start([program("pgbouncer"), configuration], ready=lambda: accepts(port), as_server_user=True)
    return port


_BUSY = """
import asyncio
from sqlalchemy import text
from app.db import dispose_engines, get_async_session, get_sync_session

async def one(n):
    async with get_async_session() as session:
        for _ in range(5):
            assert await session.scalar(text("SELECT CAST(:n AS integer)"), {"n": n}) == n
            await session.commit()
    return n

async def main():
    found = await asyncio.gather(*(one(n) for n in range(10)))
    await dispose_engines()
    return found

for n in range(5):
    with get_sync_session() as session:
        assert session.scalar(text("SELECT CAST(:n AS integer)"), {"n": n}) == n
print(asyncio.run(main()))
"""


@pytest.mark.needs("pgbouncer")
def test_pgbouncer(own_postgres: Postgres, pgbouncer: int) -> None:
    """With DB_PGBOUNCER, ten tasks share two server connections in transaction mode without a clash of statements."""
    environment = {**own_postgres.parts(pgbouncer), "DB_PGBOUNCER": "1"}

    assert run_python(_BUSY, environment) == str(list(range(10)))


@pytest.mark.needs("pgbouncer")
def test_pgbouncer_without_the_switch(own_postgres: Postgres, pgbouncer: int) -> None:
    """Without the switch the same work fails: the switch is what makes the difference."""
    code = f"""
try:
    exec({_BUSY!r})
except Exception as error:
    print('prepared statement' in str(error))
"""
    assert (
        run_python(f"import warnings; warnings.simplefilter('ignore')\n{code}", own_postgres.parts(pgbouncer)) == "True"
    )


@pytest.mark.needs("pgbouncer")
def test_tables_through_pgbouncer(own_postgres: Postgres, pgbouncer: int) -> None:
    """Tables are created and dropped through PgBouncer, by either driver; their lock ends with the transaction."""
    code = """
import asyncio
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.orm import Mapped, mapped_column
from app.db import (Base, create_tables, create_tables_async, dispose_engines, drop_tables, drop_tables_async,
                    sync_engine)

class Bounced(Base):
    __tablename__ = "bounced"
    metadata = MetaData()
    id: Mapped[int] = mapped_column(primary_key=True, init=False)

def state():
    with sync_engine.connect() as connection:
        locks = connection.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
    return [inspect(sync_engine).has_table("bounced"), locks]

async def both():
    await create_tables_async(Bounced.metadata)
    found = state()
    await drop_tables_async(Bounced.metadata)
    await dispose_engines()
    return found

create_tables(Bounced.metadata)
print(state())
drop_tables(Bounced.metadata)
print(asyncio.run(both()), state())
"""
    found = run_python(code, {**own_postgres.parts(pgbouncer), "DB_PGBOUNCER": "1"})

    assert found.splitlines() == ["[True, 0]", "[True, 0] [False, 0]"]
