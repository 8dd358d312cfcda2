"""A transaction pooler between the application and the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from tests.integration.app.servers import Workshop, accepts, free_port, program

from .stage import PASSWORD, StagedSandbox


@pytest.fixture(params=["transaction", "session"])
def pooled(request: pytest.FixtureRequest, sandbox: StagedSandbox) -> Iterator[str]:
    """The URL of a PgBouncer in front of the sandbox."""
    behind, port = sandbox.address, free_port()
    with Workshop() as workshop:
        users = workshop.write("users.txt", f'"{behind.user}" "{PASSWORD}"\n')
        configuration = workshop.write(
            "pgbouncer.ini",
            f"[databases]\n{behind.database} = host=127.0.0.1 port={behind.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = plain\nauth_file = {users}\npool_mode = {request.param}\nserver_reset_query_always = 1\n",
        )
        workshop.start([program("pgbouncer"), configuration], ready=lambda: accepts(port), as_server_user=True)
        yield sandbox.url.replace(f":{behind.port}/", f":{port}/")


@pytest.mark.needs("pgbouncer")
def test_a_pooler_in_front_of_the_sandbox(pooled: str) -> None:
    """Its clients have transactions of their own, and what one has set is reset for the next."""
    with (
        closing(psycopg2.connect(pooled)) as first,
        closing(psycopg2.connect(pooled)) as second,
        first.cursor() as one,
        second.cursor() as other,
    ):
        one.execute("INSERT INTO items (id) VALUES (10)")
        other.execute("SAVEPOINT s")
        one.execute("SET work_mem = '3MB'")
        first.commit()
        other.execute("ROLLBACK TO s; SELECT count(*) FROM items")
        assert other.fetchone() == (4,)
        second.rollback()
        other.execute("SHOW work_mem")
        assert other.fetchone() != ("3MB",)
