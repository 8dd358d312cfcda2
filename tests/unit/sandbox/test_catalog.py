"""What a statement may write by what it calls, as far as the database's catalog tells."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.sandbox import sql
from pytest_chatdify_db.sandbox.catalog import Catalog, defines

ROWS: list[list[str | None]] = [
    ["deferred", "public.a", "t\tu"],
    ["deferrable", "public.b", "u"],
    ["function", "writes", ""],
    ["named", "writing", ""],
    ["operator", "+++", ""],
    ["function", None, ""],
]


@pytest.mark.parametrize(
    ("text", "rows", "may_write"),
    [
        ("select 1", ROWS[:4], False),
        ("select writes()", ROWS[:4], True),
        ("select writes /* a comment */ ()", ROWS[2:3], True),
        ("select * from writing", ROWS[:4], True),
        ("select lo_create(0)", [], True),
        ("select a +++ b from t", ROWS, True),
        ("select 1", ROWS, False),
    ],
)
def test_may_write(text: str, rows: list[list[str | None]], *, may_write: bool) -> None:
    """By a function of the database, a view that calls one, or an operator, of which any may be one."""
    (statement,) = sql.parse(text.encode())

    assert Catalog.from_rows(rows).may_write(statement) is may_write


def test_constraints() -> None:
    """Which there are, which wait by themselves, and which tables they check."""
    catalog = Catalog.from_rows(ROWS)

    assert (catalog.has_deferrable, catalog.deferred) == (True, ("public.a",))
    assert catalog.on(frozenset({"u"})) == ["public.a", "public.b"]
    assert catalog.check(["public.b"]) == "SET CONSTRAINTS public.b IMMEDIATE"
    assert catalog.modes(["asked"]) == [
        "SET CONSTRAINTS public.b IMMEDIATE;SET CONSTRAINTS public.a DEFERRED;asked",
        "SET CONSTRAINTS public.a DEFERRED",
    ]
    assert Catalog().modes([]) == []


def test_definitions() -> None:
    """Statements after which the catalog is read again."""
    for text, is_one in (("create table t ()", True), ("do 'x'", True), ("select 1", False)):
        (statement,) = sql.parse(text.encode())
        assert defines(statement) is is_one
