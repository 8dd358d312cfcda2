"""Run-time parameters: what a client has set, what ends with what, and the SQL between one client and the next."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.sandbox import parameters, sql
from pytest_chatdify_db.sandbox.parameters import Change, InForce, Parameters


def test_each_level_ends_with_what_it_belongs_to() -> None:
    """SET LOCAL with the transaction, SET with a rollback or RESET ALL, the start-up packet with the connection."""
    own = Parameters()
    own.start({"a": "startup"})
    before = own.snapshot()
    own.learn(Change("a", is_local=False), "session")
    own.learn(Change("a", is_local=True), "local")

    assert own.effective == {"a": "local"}

    own.end_transaction()
    assert own.effective == {"a": "session"}

    own.restore(before)
    assert own.effective == {"a": "startup"}

    own.learn(Change("b", is_local=False), "set")
    own.reset()
    assert own.effective == {"a": "startup"}


def test_set_takes_the_place_of_set_local() -> None:
    """As the last word in the transaction; a value that cannot be read is not learnt."""
    own = Parameters()
    own.learn(Change("a", is_local=True), "local")
    own.learn(Change("a", is_local=False), "session")
    own.learn(Change("a", is_local=False), None)

    assert own.effective == {"a": "session"}

    own.forget("a")
    assert own.effective == {}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"user": "u", "database": "d", "application_name": "x"}, {"application_name": "x"}),
        ({"client_encoding": "'utf-8'"}, {"client_encoding": "utf-8"}),
        ({"options": "-c a=1 -cb=2 --c-d=3"}, {"a": "1", "b": "2", "c_d": "3"}),
        ({"options": r"-c search_path=x,\ y"}, {"search_path": "x, y"}),
        ({"options": "-c A=1", "a": "2", "_pq_.x": "y"}, {"a": "2"}),
        ({"options": r"-c a=\\b -e -S 5 -i"}, {"a": r"\b"}),
        ({"session_authorization": "x"}, {}),
    ],
)
def test_the_startup_packet_is_read(given: dict[str, str], found: dict[str, str]) -> None:
    """With the parameters inside ``options``, which yield to those beside it."""
    assert parameters.startup_settings(given) == found


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("-c", "invalid command-line argument for server process: -c"),
        ("-e x", "invalid command-line argument for server process: x"),
        ("-x", "invalid command-line argument for server process: -x"),
        ("-c a", "-c a requires a value"),
        ("--a", "--a requires a value"),
    ],
)
def test_options_that_cannot_be_read(options: str, text: str) -> None:
    """The server's own words say why."""
    with pytest.raises(parameters.BadOption) as raised:
        parameters.startup_settings({"options": options})
    assert raised.value.args[0] == text


@pytest.mark.parametrize(
    ("text", "values", "found"),
    [
        ("SET a = 1", (), [Change("a", is_local=False)]),
        ("SET LOCAL a = 1", (), [Change("a", is_local=True)]),
        ("SET seed = 0.5", (), []),
        ("SELECT set_config('seed', '0.5', false)", (), []),
        ("SELECT set_config /* here */ ('a', 'x', false)", (), [Change("a", is_local=False)]),
        ("SELECT set_config('A.b', 'x', true)", (), [Change("a.b", is_local=True)]),
        ("SELECT set_config('a', 'x', false), set_config('b', f(1, 2), 't')", (), None),
        ("SELECT set_config($1, $2, $3)", ("a", "x", "on"), [Change("a", is_local=True)]),
        ("SELECT set_config($1::text, $2, $3::bool)", ("a", "x", "\0"), [Change("a", is_local=False)]),
        ("SELECT set_config($1, 'x', true)", (), []),
        ("SELECT 1", (), []),
    ],
)
def test_changes_are_seen_in_the_text(text: str, values: tuple[str, ...], found: list[Change] | None) -> None:
    """Of SET, and of set_config with constants and bound values."""
    (statement,) = sql.parse(text.encode())
    expected = [Change("a", is_local=False), Change("b", is_local=True)] if found is None else found

    assert parameters.changes(statement, values) == expected


@pytest.mark.parametrize(
    ("current", "wanted", "expected"),
    [
        ({"a": "1"}, {"a": "1"}, ""),
        ({}, {"a": "it's"}, "SELECT pg_catalog.set_config('a','it''s',false)"),
        ({"a.b": "1"}, {}, 'RESET "a"."b"'),
        (
            {"a": "1", "role": "x"},
            {"role": "y", "session_authorization": "z"},
            "RESET \"role\";RESET \"a\";SELECT pg_catalog.set_config('session_authorization','z',false)"
            ",pg_catalog.set_config('role','y',false)",
        ),
    ],
)
def test_only_the_difference_is_written(current: dict[str, str], wanted: dict[str, str], expected: str) -> None:
    """And roles are left before, and taken after, everything else."""
    assert parameters.switch(current, wanted) == expected


def test_values_are_read_back_by_name() -> None:
    """A parameter that is not there is NULL."""
    assert parameters.read_back(["a", "b"]) == (
        "SELECT pg_catalog.current_setting('a',true),pg_catalog.current_setting('b',true)"
    )


def test_limits_of_time_hold_while_their_client_is_served() -> None:
    """Those that end a session do so only for a statement that may ask for them; all are lifted behind it."""
    (insert,), (show,), (execute,) = map(sql.parse, (b"insert into t values (1)", b"SHOW ALL", b"execute p"))
    settings = {"statement_timeout": "1s", "idle_session_timeout": "1ms", "a": "1"}
    own = InForce.of(settings)

    assert own.lasting == {"a": "1"}
    assert own.served == {"a": "1", "statement_timeout": "1s"}
    assert own.while_it_runs([insert]) == (own.served, frozenset({"statement_timeout"}))
    assert own.while_it_runs([insert, show]) == own.while_it_runs([execute]) == (settings, own.limits)
    assert parameters.lift(own.limits) == (
        "SELECT pg_catalog.set_config('idle_session_timeout','0',false),"
        "pg_catalog.set_config('statement_timeout','0',false)"
    )


def test_a_client_is_told_its_own_values() -> None:
    """What it has set, over what the server reported when it came; the server's word where the role decides."""
    own = Parameters()
    own.learn(Change("timezone", is_local=False), "UTC")
    own.learn(Change("role", is_local=False), "clerk")
    defaults = {"TimeZone": "Europe/Berlin", "is_superuser": "on"}

    assert own.identity == ("", "clerk")
    assert own.reports(defaults, {("", "clerk"): "off"}) == {"TimeZone": "UTC", "is_superuser": "off"}
    assert not own.is_read_only
    assert Parameters().identity == ()


def test_reset_all_keeps_the_roles() -> None:
    """As the server's does; DISCARD ALL does not."""
    own = Parameters()
    own.learn(Change("session_authorization", is_local=False), "clerk")
    own.learn(Change("work_mem", is_local=False), "1MB")
    own.learn(Change("role", is_local=True), "maid")
    own.learn(Change("timezone", is_local=True), "UTC")
    own.reset_all()
    assert own.snapshot() == ({"session_authorization": "clerk"}, {"role": "maid"})
    own.reset()
    assert own.effective == {}


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        (b"set session authorization clerk", False),
        (b"set local session authorization clerk", True),
        (b"select set_config('session_authorization', 'clerk', true)", True),
    ],
)
def test_another_session_user_has_another_role(text: bytes, *, is_local: bool) -> None:
    """What the server does to the role is read back too; RESET forgets both."""
    (statement,) = sql.parse(text)
    changes = parameters.changes(statement)
    assert changes == [Change("session_authorization", is_local), Change("role", is_local)]
    own = Parameters()
    for change in changes:
        own.learn(change, "none")
    own.forget("session_authorization")
    assert own.effective == {}


def test_values_that_are_not_ascii() -> None:
    """They are written so that every client encoding reads them the same."""
    assert parameters.switch({}, {"app.user": "Zo\u00eb'"}) == (
        "SELECT pg_catalog.set_config('app.user', E'Zo\\U000000eb\\U00000027',false)"
    )


def test_a_limit_that_is_reset_is_one_to_lift() -> None:
    """What the server's configuration says of it must not hold for the session that all share."""
    (reset,) = sql.parse(b"reset statement_timeout")
    (other,) = sql.parse(b"reset work_mem")

    assert parameters.changes(reset) == [Change("statement_timeout", is_local=False)]
    assert parameters.changes(other) == []


def test_modes_of_a_transaction_are_no_settings_of_a_session() -> None:
    """However a start-up packet says them: each transaction begins without."""
    given = {"transaction_read_only": "on", "options": "-c transaction_isolation=serializable -c work_mem=1MB"}

    assert parameters.startup_settings(given) == {"work_mem": "1MB"}
