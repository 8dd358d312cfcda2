"""A client with a session of its own: all passes as it is, but for what it brings along from another session."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox.catalog import Catalog
from pytest_chatdify_db.sandbox.client import Client, Stage
from pytest_chatdify_db.sandbox.direct import DirectSession
from pytest_chatdify_db.sandbox.messages import Stored
from pytest_chatdify_db.sandbox.parameters import Change
from tests.integration.sandbox.scripts import Step, show

from .table import COPY_IN, REPORTED, messages


def client() -> Client:
    """Return a client that has logged in."""
    return Client(7, b"key!", stage=Stage.READY, reported=dict(REPORTED))


def session(of: Client) -> DirectSession:
    """Return a session of its own."""
    return DirectSession(of, REPORTED, Catalog().may_write)


def sent(direct: DirectSession, *lines: str) -> list[tuple[str, bytes]]:
    """Have the client send messages; return what goes to the server."""
    of = direct.client
    of.feed(b"".join(Step("", *line.partition(" ")[::2]).data for line in lines))
    of.cut()
    while of.units:
        direct.take(of.units.popleft())
    data = bytes(direct.out)
    direct.out.clear()
    return list(messages(data))


def shown(direct: DirectSession, data: bytes) -> list[str]:
    """Have the server say *data*; return what the client is shown."""
    direct.receive(data)
    lines = [show(wire.message(kind.encode(), body)) for kind, body in messages(direct.client.out)]
    direct.client.out.clear()
    return lines


def test_it_begins_with_the_clients_parameters() -> None:
    """They are set unseen, and what the session reports otherwise than the one before is told."""
    of = client()
    of.reported["TimeZone"] = "Europe/Berlin"
    of.parameters.start({"jit": "off", "client_encoding": "LATIN1"})
    of.parameters.learn(Change("work_mem", is_local=False), "1MB")
    direct = session(of)

    assert shown(direct, wire.command_complete("SELECT 1") + wire.READY["I"]) == ["S TimeZone=UTC"]
    assert b"set_config('work_mem'" in bytes(direct.out)
    assert b"'client_encoding'" in bytes(direct.out)
    assert b"'jit'" not in bytes(direct.out)  # the connection was made with it
    assert shown(direct, wire.READY["I"]) == ["Z I"]


def test_names_of_statements_are_those_of_the_shared_session() -> None:
    """So that a client may move; portals keep their names."""
    direct = session(client())

    assert sent(direct, "P s select 1", "D s s", "B p s", "E p", "C s s", "S") == [
        ("P", b"chatdify.7.s\0select 1\0\0\0"),
        ("D", b"Schatdify.7.s\0"),
        ("B", b"p\0chatdify.7.s\0" + bytes(6)),
        ("E", b"p\0" + bytes(4)),
        ("C", b"Schatdify.7.s\0"),
        ("S", b""),
    ]
    assert sent(direct, "P - select 1", "B - -", "C s -", "D p -", "S")[2] == ("C", b"S\0")


def test_a_statement_that_it_brings_along_is_prepared_again() -> None:
    """Unseen, and once; an unnamed one after each other one. One that nobody knows is the server's to refuse."""
    of = client()
    first = session(of)
    sent(first, "P s select 1", "P - select 2", "S")
    direct = session(of)

    assert [kind for kind, _ in sent(direct, "B - s", "S")] == ["P", "B", "S"]
    assert [kind for kind, _ in sent(direct, "B - s", "D s s", "S")] == ["B", "D", "S"]
    assert [kind for kind, _ in sent(direct, "B - -", "B - -", "S")] == ["P", "B", "B", "S"]
    assert [kind for kind, _ in sent(direct, "B - unknown", "D s unknown", "S")] == ["B", "D", "S"]
    assert shown(direct, wire.PARSE_COMPLETE + wire.BIND_COMPLETE + wire.READY["I"]) == ["2", "Z I"]


def test_a_statement_that_could_not_be_prepared_again() -> None:
    """It is tried anew when it is used next; what stands behind the pipeline that failed has its own answers."""
    of = client()
    sent(session(of), "P s select 1", "P t select 2", "P - select 3", "S")
    direct = session(of)

    sent(direct, "B - s", "S", "B - t", "B - -", "S")
    assert shown(direct, wire.error("25P02", "aborted") + wire.READY["E"]) == ["E 25P02 aborted", "Z E"]
    assert shown(direct, wire.PARSE_COMPLETE + wire.BIND_COMPLETE) == ["2"]
    assert shown(direct, wire.error("42P01", "no such table") + wire.READY["I"]) == ["E 42P01 no such table", "Z I"]
    assert [kind for kind, _ in sent(direct, "B - s", "B - t", "B - -", "S")] == ["P", "B", "B", "P", "B", "S"]
    shown(direct, wire.error("42P01", "the client's own"))
    sent(direct, "P u selekt", "S", "P u select", "S")
    own = wire.READY["I"] + wire.error("42601", "syntax error") + wire.READY["I"] + wire.PARSE_COMPLETE
    assert shown(direct, own) == ["Z I", "E 42601 syntax error", "Z I", "1"]


def test_what_the_server_says_is_shown() -> None:
    """A parameter only where it changes, names as the client has given them, and messages however they arrive."""
    direct = session(client())
    sent(direct, "P s select 1", "S")
    data = (
        wire.PARSE_COMPLETE
        + wire.parameter_status("TimeZone", "UTC")
        + wire.parameter_status("TimeZone", "Europe/Berlin")
        + wire.notice("00000", "about chatdify.7.s")
        + wire.error("42601", "about chatdify.7.s")
        + wire.command_complete("SELECT 1")
        + wire.READY["T"]
    )
    lines = shown(direct, data[:30]) + shown(direct, data[30:])

    assert lines == ["1", "S TimeZone=Europe/Berlin", "N 00000 about s", "E 42601 about s", "C SELECT 1", "Z T"]
    assert direct.status == "T"
    assert shown(direct, wire.PARSE_COMPLETE) == ["1"]


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("Q select 1", False),
        ("Q begin; set x.y = 1; commit", False),
        ("Q insert into t values (1)", True),
        ("Q select nextval('q')", True),
        ("Q select lo_create(0)", True),
        ("P - select 1; select 2", True),
        ("P - select 1", False),
        ("P - delete from t", True),
    ],
)
def test_what_may_have_changed_the_database(line: str, *, changed: bool) -> None:
    """Sequences count, and what cannot be told."""
    direct = session(client())
    sent(direct, line, "S")

    assert direct.changed is changed


def test_who_has_a_limit_of_time() -> None:
    """By its start-up packet, or by anything that it says."""
    of = client()
    assert not session(of).has_timeouts
    direct = session(of)
    sent(direct, "Q set lock_timeout = 1")
    assert direct.has_timeouts
    of.parameters.start({"statement_timeout": "1"})
    assert session(of).has_timeouts


def test_the_data_of_a_copy_passes_in_parts() -> None:
    """With room made after each."""
    direct = session(client())
    rooms: list[int] = []
    direct.make_room = lambda: rooms.append(len(direct.out))
    stored = Stored.in_(client().new_store())
    stored.store.put(b"one")
    stored.store.put(b"two")
    direct.take([stored])

    assert (bytes(direct.out), rooms) == (b"onetwo", [3, 6])


@pytest.mark.parametrize("kind", ["Q", "P", "B", "D", "C"])
def test_a_message_that_is_cut_short_is_the_servers_to_refuse(kind: str) -> None:
    """It passes as it came."""
    direct = session(client())

    assert sent(direct, f"raw {kind} 5361", "S")[0] == (kind, b"Sa")


def test_the_server_is_told_once_that_the_client_sends_no_more() -> None:
    """Behind all that it has sent."""
    direct = session(client())
    sent(direct, "Q select 1")
    direct.end()
    direct.end()

    assert bytes(direct.out) == wire.TERMINATE


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["Q select 1", "S"], [wire.READY["I"], wire.READY["I"]]),
        (["Q copy t from stdin", "d 1", "c"], [COPY_IN, wire.READY["I"]]),
        (["E p", "S", "d 1", "S", "c", "S"], [COPY_IN, wire.READY["I"]]),
        (["E p", "S", "d 1", "f no", "S"], [COPY_IN, wire.error("57014", "no") + wire.READY["I"]]),
    ],
)
def test_what_is_not_answered_is_known(lines: list[str], said: list[bytes]) -> None:
    """A Sync that comes while the server takes data gets no answer."""
    direct = session(client())
    assert not direct.is_awaited
    for at, answer in enumerate(said):
        sent(direct, *(lines[:2] if not at else lines[2:]))
        assert direct.is_awaited
        direct.receive(answer)

    assert direct.is_idle


def test_who_notifies_is_told_by_its_number() -> None:
    """As drivers know it, who compare it with their own."""
    direct = DirectSession(client(), REPORTED, Catalog().may_write, lambda pid: pid - 4711)
    direct.receive(wire.message(b"A", wire.pack_int32(4718) + b"news\0x\0"))

    assert bytes(direct.client.out) == wire.message(b"A", wire.pack_int32(7) + b"news\0x\0")


def test_a_position_is_counted_in_the_last_text_of_a_pipeline() -> None:
    """A limit: what SQL names there is not what fails."""
    direct = session(client())
    sent(direct, "P - insert into nothing values (1)", "P - execute p", "S")
    error = wire.message(b"E", b"SERROR\0C42P01\0Mno such table\0P13\0\0")

    assert shown(direct, error) == ["E 42P01 no such table P=9"]


def test_no_error_points_to_where_the_client_is() -> None:
    """It has a database of its own already: what it is refused there, PostgreSQL refuses everybody."""
    error = wire.error("25001", "VACUUM cannot run inside a transaction block")

    assert shown(session(client()), error) == ["E 25001 VACUUM cannot run inside a transaction block"]


def test_errors_are_in_the_clients_words() -> None:
    """Positions and names are those that it has said, not those that the session knows."""
    direct = session(client())
    (_, query), *_ = sent(direct, "Q prepare p as selekt")
    at = query.index(b"selekt") + 1
    error = wire.message(b"E", b"SERROR\0C42601\0Msyntax error\0P%d\0\0" % at)
    assert shown(direct, error) == ["E 42601 syntax error P=14"]

    long = "n" * 70
    sent(direct, f"P {long} select 1", f"B - {long}y", "S")
    server_name = direct.client.statements[b"n" * 63].name.decode()
    told = shown(direct, wire.error("26000", f'prepared statement "{server_name}" does not exist'))
    assert told == [f'E 26000 prepared statement "{long}y" does not exist']
