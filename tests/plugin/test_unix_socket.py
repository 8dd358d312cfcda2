"""By which way connections of a test reach the sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project


def test_engines_take_the_unix_socket(project: Project, tmp_path: Path) -> None:
    """Of every driver, though URLs name the port, by which drivers without an engine connect; none is left."""
    project.write_models()
    project.write(
        "test_ways.py",
        f"""
        import os
        from pathlib import Path

        import psycopg2
        import pytest
        from sqlalchemy import create_engine, make_url, text
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool
        from models import Item

        NAMES = text("SELECT name FROM item")

        def url(driver):
            return make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+" + driver)

        def test_sync(sync_session):
            sync_session.add(Item(name="x"))
            sync_session.commit()
            engine = create_engine(url("psycopg2"), poolclass=NullPool)
            with engine.connect() as connection:
                host = connection.connection.dbapi_connection.info.host
                assert connection.scalars(NAMES).all() == ["x"]
            assert engine.url.host == "127.0.0.1"
            socket, = Path(host).glob(f".s.PGSQL.{{engine.url.port}}")
            assert socket.stat().st_mode & 0o777 == 0o600
            assert Path(host).stat().st_mode & 0o066 == 0  # a server's own user may have to pass through
            Path({str(tmp_path / "way")!r}).write_text(str(socket))

        def test_psycopg(sync_session):
            with create_engine(url("psycopg"), poolclass=NullPool).connect() as connection:
                assert connection.connection.dbapi_connection.info.host.startswith("/")

        @pytest.mark.asyncio
        async def test_async(session):
            session.add(Item(name="y"))
            await session.commit()
            engine = create_async_engine(url("asyncpg"), poolclass=NullPool)
            async with engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert isinstance(driver._addr, str)
                assert (await connection.scalars(NAMES)).all() == ["y"]

        def test_no_engine(sync_session):
            connection = psycopg2.connect(os.environ["DATABASE_URL"])
            assert connection.info.host == "127.0.0.1"
            connection.close()
        """,
    )

    result = project.run("--asyncio-mode=strict")

    result.assert_outcomes(passed=4)
    way = Path((tmp_path / "way").read_text())
    assert not way.exists()


def test_who_asks_for_encryption_does_not(project: Project) -> None:
    """A unix socket would do without it and say nothing; the port refuses, as a server without TLS does."""
    project.write_models()
    project.write(
        "test_tls.py",
        """
        import os
        import pytest
        from sqlalchemy import create_engine, make_url
        from sqlalchemy.ext.asyncio import create_async_engine
        from sqlalchemy.pool import NullPool

        URL = make_url(os.environ["DATABASE_URL"])

        def test_psycopg2(sync_session):
            engine = create_engine(URL.set(drivername="postgresql+psycopg2"), connect_args=dict(sslmode="require"))
            with pytest.raises(Exception, match="server does not support SSL"):
                engine.connect()

        @pytest.mark.asyncio
        async def test_asyncpg(session):
            url = URL.set(drivername="postgresql+asyncpg")
            engine = create_async_engine(url, poolclass=NullPool, connect_args=dict(ssl="require"))
            with pytest.raises(Exception, match="rejected SSL upgrade"):
                async with engine.connect():
                    pass
        """,
    )

    project.run("--asyncio-mode=strict").assert_outcomes(passed=2)
