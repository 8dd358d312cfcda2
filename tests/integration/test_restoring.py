"""A test's own database made like its template again, or found to be one that has to be replaced."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from pytest_chatdify_db import naming
from pytest_chatdify_db.databases import templates
from pytest_chatdify_db.databases.restoring import Baseline
from pytest_chatdify_db.databases.spares import MOST, Spares
from pytest_chatdify_db.databases.templates import Recipe
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.servers import Server
from pytest_chatdify_db.servers.run import Run
from tests.integration.stand import running_server

_TABLES = """
    CREATE TABLE shops (id serial PRIMARY KEY, name text);
    CREATE TABLE "Or""ders" (id int GENERATED ALWAYS AS IDENTITY (START 5), shop int NOT NULL REFERENCES shops);
    CREATE TABLE parts (number int) PARTITION BY RANGE (number);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (9);
    CREATE TABLE countries (code text);
    INSERT INTO countries VALUES ('de');
    SELECT setval('shops_id_seq', 40, false);
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''kept''; END';
    CREATE TRIGGER keep BEFORE DELETE ON shops FOR EACH ROW EXECUTE FUNCTION refuse();
"""


def build(address: Address) -> list[str]:
    """Make the tables."""
    with connect(address) as connection:
        connection.query(_TABLES)
    return []


@pytest.fixture(scope="module")
def started() -> Iterator[tuple[Server, Run]]:
    """Return a server and its run."""
    with running_server() as made:
        yield made


@pytest.fixture(scope="module")
def server(started: tuple[Server, Run]) -> Server:
    """Return the server."""
    return started[0]


@pytest.fixture(scope="module")
def run(started: tuple[Server, Run]) -> Run:
    """Return the run that it belongs to."""
    return started[1]


@pytest.fixture(scope="module")
def template(server: Server, run: Run) -> str:
    """Return a template with tables of every kind."""
    return templates.ensure(server, Recipe("restoring", build), run=run, progress=lambda line: None)


@pytest.fixture(scope="module")
def baseline(server: Server, run: Run, template: str) -> Baseline:
    """Return what all copies have in common."""
    read = Baseline.read(templates.clone(server, template, naming.worker_name(run.id, "gw0")))
    assert read is not None
    return read


@pytest.fixture
def copy(server: Server, run: Run, template: str) -> Iterator[Address]:
    """Return a copy of the template for one test."""
    name = naming.worker_name(run.id, "gw1")
    yield templates.clone(server, template, name)
    templates.drop(server, name)


def content(connection: Connection) -> list[tuple[str | None, ...]]:
    """Return how many rows the tables have, and the next ids."""
    return connection.query(
        """
        SELECT (SELECT count(*) FROM shops), (SELECT count(*) FROM "Or""ders"), (SELECT count(*) FROM parts),
               (SELECT count(*) FROM countries), nextval('shops_id_seq'),
               nextval(pg_get_serial_sequence('"Or""ders"', 'id'))
        """
    )


@pytest.mark.parametrize("turns", [1, 3])
def test_rows_and_sequences_are_as_they_were(baseline: Baseline, copy: Address, turns: int) -> None:
    """Rows are gone from every table that had none, whatever refers to them, and ids begin again; also repeatedly."""
    seen = []
    for _ in range(turns):
        with connect(copy) as connection:
            connection.query("INSERT INTO shops (name) VALUES ('a'), ('b')")
            connection.query('INSERT INTO "Or""ders" (shop) SELECT id FROM shops')
            connection.query("INSERT INTO parts VALUES (3); UPDATE shops SET name = 'c'; SELECT code FROM countries")
        assert baseline.restore(copy)
        with connect(copy) as connection:
            seen.append(content(connection))
        assert baseline.restore(copy)

    assert seen == [[("0", "0", "0", "1", "40", "5")]] * turns


def test_what_was_only_read_stays(baseline: Baseline, copy: Address) -> None:
    """Rows of the template are there after it."""
    with connect(copy) as connection:
        connection.query("SELECT * FROM countries, shops; BEGIN; LOCK TABLE shops; COMMIT")

    assert baseline.restore(copy)


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO countries VALUES ('fr')",
        "UPDATE countries SET code = 'fr'",
        "DELETE FROM countries",
        "TRUNCATE countries",
        "TRUNCATE parts",
        "CREATE TABLE another ()",
        "CREATE TEMPORARY TABLE another ()",
        "DROP TABLE countries",
        "ALTER TABLE shops ADD note text",
        "ALTER TABLE shops RENAME name TO title",
        "ALTER TABLE shops ALTER name SET NOT NULL",
        "ALTER TABLE shops DISABLE TRIGGER keep",
        "ALTER SEQUENCE shops_id_seq INCREMENT 2",
        "COMMENT ON TABLE shops IS 'a note'",
        "GRANT SELECT ON shops TO PUBLIC",
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE SCHEMA another",
        "CREATE TYPE mood AS ENUM ('ok')",
        "CREATE VIEW v AS SELECT 1",
        "SELECT lo_create(0)",
        "ANALYZE countries",
        "SELECT pg_stat_reset()",
        "DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''1MB''', current_database()); END$$",
        "DO $$BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()); END$$",
        "DO $$BEGIN EXECUTE format('COMMENT ON DATABASE %I IS ''mine''', current_database()); END$$",
        "DO $$BEGIN EXECUTE 'CREATE INDEX ON shops (name)'; END$$",
    ],
)
def test_what_cannot_be_undone_is_noticed(baseline: Baseline, copy: Address, change: str) -> None:
    """A changed schema, changed rows of the template, and what belongs to the database as a whole."""
    with connect(copy) as connection:
        connection.query(change)

    assert not baseline.restore(copy)


def test_sessions_that_are_left_are_ended(baseline: Baseline, copy: Address) -> None:
    """What they have not committed is undone, and what they have written is counted."""
    with connect(copy) as left:
        left.query("INSERT INTO shops (name) VALUES ('a'); BEGIN; INSERT INTO countries VALUES ('fr')")
        assert not baseline.restore(copy)  # what was rolled back counts as well


def test_a_database_that_is_gone_is_not_restored(baseline: Baseline, server: Server) -> None:
    """Whoever asks replaces it."""
    assert not baseline.restore(server.address.with_database("nowhere"))


def test_an_empty_schema(server: Server, run: Run) -> None:
    """There is nothing to look at, and nothing to undo."""
    name = naming.worker_name(run.id, "gw2")
    address = templates.clone(server, "template0", name)
    baseline = Baseline.read(address)

    assert baseline is not None
    assert baseline.restore(address)
    templates.drop(server, name)


@pytest.mark.parametrize(
    ("change", "is_undone"), [("INSERT INTO shops (name) VALUES ('a')", True), ("DROP TABLE countries", False)]
)
def test_spares_are_used_again(server: Server, run: Run, template: str, change: str, *, is_undone: bool) -> None:
    """Each is like the template when it is taken, and only those are replaced that have to be."""
    numbers = count()
    spares = Spares(server, template, lambda: naming.worker_name(run.id, "gw3", str(next(numbers))))
    taken = []
    for _ in range(20):
        database = spares.take()
        with connect(database) as connection:
            assert content(connection) == [("0", "0", "0", "1", "40", "5")]
            connection.query(change)
        spares.give_back(database, changed=True)
        taken.append(database.database)
    for name in spares.retire():
        templates.drop(server, name)

    assert len(set(taken)) <= MOST + 2 if is_undone else len(set(taken)) == len(taken)
