"""Which functions of a schema are held to write, and what leads to one without naming it."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.sandbox.schema_query import QUERY

from .stage import TEMPLATE, Stage

VOLATILE = "CREATE FUNCTION vol() RETURNS int LANGUAGE sql AS 'SELECT 1'"
CALLS = "CREATE FUNCTION calls() RETURNS int STABLE LANGUAGE sql AS 'SELECT vol()'"


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ("CREATE FUNCTION calm(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'", set()),
        ("CREATE FUNCTION calm(int) RETURNS int STABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'", set()),
        ("CREATE FUNCTION calm() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'; CREATE VIEW v AS SELECT calm()", set()),
        (CALLS, {"calls"}),
        (f"{CALLS}; CREATE FUNCTION more() RETURNS int STABLE LANGUAGE sql AS 'SELECT calls()'", {"calls", "more"}),
        (f"{CALLS}; CREATE VIEW v AS SELECT calls(); CREATE VIEW w AS SELECT * FROM v", {"calls", "v", "w"}),
        (
            "CREATE VIEW v AS SELECT vol(); "
            "CREATE FUNCTION calm() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM v'",
            {"v", "calm"},
        ),
        ("CREATE FUNCTION atomic() RETURNS int STABLE LANGUAGE sql BEGIN ATOMIC SELECT vol(); END", {"atomic"}),
        ("CREATE FUNCTION given(int DEFAULT vol()) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'", {"given"}),
        (
            "CREATE FUNCTION dynamic() RETURNS int STABLE LANGUAGE plpgsql AS "
            "$$ DECLARE n int; BEGIN EXECUTE 'SELECT ' || 'v' || 'ol()' INTO n; RETURN n; END $$",
            {"dynamic"},
        ),
        ("CREATE FUNCTION large() RETURNS oid STABLE LANGUAGE sql AS 'SELECT lo_create(0)'", {"large"}),
        (
            'CREATE FUNCTION "Odd one"() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; '
            'CREATE FUNCTION calm() RETURNS int STABLE LANGUAGE sql AS $$ SELECT "Odd one"() $$',
            {"odd one", "calm"},
        ),
        ("CREATE DOMAIN d AS int CHECK (value > vol())", {"d"}),
        (f"{CALLS}; CREATE DOMAIN d AS int CHECK (value > calls())", {"calls", "d"}),
        ("CREATE TABLE p (id int); CREATE POLICY own ON p USING (vol() = id)", {"p"}),
        ("CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int)", {"total"}),
    ],
)
def test_what_may_write(server: Stage, made: str, found: set[str]) -> None:
    """Beside what the stage has anyway."""
    with connect(server.server.address.with_database(TEMPLATE)) as connection:
        connection.query(f"BEGIN; {VOLATILE}")
        before = names(connection.query(QUERY))
        connection.query(made)
        assert names(connection.query(QUERY)) - before == found


@pytest.mark.parametrize(("volatility", "is_found"), [("VOLATILE", True), ("IMMUTABLE", False)])
def test_operators_that_may_write(server: Stage, volatility: str, *, is_found: bool) -> None:
    """One that cannot is of no interest; any statement may use one that can."""
    with connect(server.server.address.with_database(TEMPLATE)) as connection:
        connection.query(f"BEGIN; CREATE FUNCTION f(int, int) RETURNS bool {volatility} LANGUAGE sql AS 'SELECT true'")
        connection.query("CREATE OPERATOR ### (leftarg = int, rightarg = int, function = f)")
        assert any(sort == "operator" for sort, _, _ in connection.query(QUERY)) is is_found


def names(rows: list[tuple[str | None, ...]]) -> set[str]:
    """Return the names of what may write."""
    return {name or "" for sort, name, _ in rows if sort in {"function", "named"}}
