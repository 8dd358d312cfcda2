"""What the fingerprint of the project's tables depends on, and what not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Column, ForeignKey, Index, Integer, MetaData, String, Table, event, insert, select, text, update
from sqlalchemy.sql import literal

from pytest_chatdify_db.contents import schema


def fingerprint(order: tuple[str, ...]) -> str:
    """Return that of a table with two indexes, which SQLAlchemy's set happens to give in this *order*."""
    metadata = MetaData()
    table = Table("items", metadata, Column("a", Integer), Column("b", Integer))
    indexes = {name: Index(f"items_{name}", table.c[name], unique=name == "a") for name in ("a", "b")}
    table.indexes = [indexes[name] for name in order]  # type: ignore[assignment]  # a set with an order
    return schema.recipe([metadata], None, unknown="").fingerprint


def test_the_order_of_indexes_does_not_matter() -> None:
    """It differs from process to process, and the second run has to find what the first has kept."""
    assert fingerprint(("a", "b")) == fingerprint(("b", "a"))


@pytest.mark.parametrize("order", [("a",), ("b",), ()])
def test_the_indexes_matter(order: tuple[str, ...]) -> None:
    """A table that has lost one is another table."""
    assert fingerprint(order) != fingerprint(("a", "b"))


_CIRCLE = """
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table
from pytest_chatdify_db.contents import schema

metadata = MetaData()
for name, other in ("users", "teams"), ("teams", "plans"), ("plans", "users"), ("teams", "users"), ("plans", "teams"):
    Table(name, metadata, Column(f"a_{other}", ForeignKey(f"{other}.id")), extend_existing=True)
for table in metadata.tables.values():
    table.append_column(Column("id", Integer, primary_key=True))
print(schema.recipe([metadata], None, unknown="").fingerprint)
"""


def test_the_order_of_a_circle_does_not_matter() -> None:
    """Tables that refer to each other are created in an order that differs from process to process."""
    found = set()
    for seed in range(8):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        done = subprocess.run([sys.executable, "-c", _CIRCLE], env=environment, capture_output=True, check=True)
        found.add(done.stdout)

    assert len(found) == 1


def listened(listener: Callable[[Any, Table], object], default: object = None) -> tuple[str, bool]:
    """Return the fingerprint, and whether it fits one run alone, of a table whose creation has that *listener*."""
    metadata = MetaData()
    table = Table("items", metadata, Column("id", Integer, primary_key=True), Column("name", String, default=default))
    event.listen(metadata, "after_create", lambda _, connection, **__: listener(connection, table))
    recipe = schema.recipe([metadata], None, unknown="unknown")
    return recipe.fingerprint, recipe.fits_once


@pytest.mark.parametrize(
    "listener",
    [
        lambda name: lambda connection, items: connection.execute(insert(items).values(name=name)),
        lambda name: lambda connection, items: connection.execute(insert(items), [{"name": name}]),
        lambda name: (
            lambda connection, items: connection.execute(insert(items).from_select(["name"], select(literal(name))))
        ),
        lambda name: lambda connection, items: connection.execute(update(items).where(items.c.name == name)),
        lambda name: lambda connection, _: connection.execute(text("SELECT :name").bindparams(name=name)),
        lambda name: lambda connection, _: connection.execute(text("SELECT :name"), {"name": name}),
    ],
)
def test_the_values_of_a_listener_matter(listener: Callable[[str], Callable[[Any, Table], object]]) -> None:
    """They stand beside the text of its statement."""
    (one, is_own), (other, _), (again, _) = (listened(listener(name)) for name in ("one", "two", "one"))

    assert one == again != other
    assert not is_own


def test_the_defaults_of_a_listener_s_rows_matter() -> None:
    """SQLAlchemy adds them when the rows are stored."""

    def add(connection: Any, items: Table) -> None:
        connection.execute(insert(items), [{"id": 1}])

    assert listened(add, "one") == listened(add, "one") != listened(add, "two")
    assert not listened(add, "one")[1]
    assert listened(add, lambda: str(uuid4()))[1]


def _asks(connection: Any, _: Table) -> None:
    connection.execute(text("SELECT 1")).scalar_one()


def _asks_in_vain(connection: Any, _: Table) -> None:
    try:
        connection.execute(text("SELECT 1")).scalar_one()
    except AttributeError:
        return


def _reads_rows(connection: Any, _: Table) -> None:
    list(connection.execute(text("SELECT 1")))


def _asks_the_driver(connection: Any, _: Table) -> None:
    try:
        connection.exec_driver_sql("SELECT 1")
    except AttributeError:
        return


@pytest.mark.parametrize("listener", [_asks, _asks_in_vain, _reads_rows, _asks_the_driver])
def test_a_listener_that_asks_the_server_makes_a_template_of_the_run_s_own(
    listener: Callable[[Any, Table], None],
) -> None:
    """What it does with the answer cannot be known without a server."""
    assert listened(listener)[1]


def test_a_column_that_refers_to_another_table_is_declared() -> None:
    """A plain project's template may be kept."""
    metadata = MetaData()
    Table("owners", metadata, Column("id", Integer, primary_key=True))
    Table("items", metadata, Column("owner", ForeignKey("owners.id"), default=lambda: 1))

    assert not schema.recipe([metadata], None, unknown="unknown").fits_once


def test_a_listener_for_once_is_not_spent() -> None:
    """It is called again when the tables are really created, and only then for the last time."""
    metadata = MetaData()
    table = Table("items", metadata, Column("id", Integer, primary_key=True))
    called = []
    for target in (metadata, table):
        event.listen(target, "after_create", lambda *_, **__: called.append(1), once=True)

    fingerprints = {schema.recipe([metadata], None, unknown="unknown").fingerprint for _ in range(2)}

    assert len(fingerprints) == 1
    assert len(called) == 4
