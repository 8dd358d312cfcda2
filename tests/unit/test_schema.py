"""What the fingerprint of the project's tables depends on, and what not."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Index, Integer, MetaData, Table

from pytest_chatdify_db import schema


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
