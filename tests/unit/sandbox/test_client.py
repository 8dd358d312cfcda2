"""A client's bytes become units, however they arrive, and nothing else than messages does."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import names, sql
from pytest_chatdify_db.sandbox.client import Client, Stage
from pytest_chatdify_db.sandbox.messages import Message, bound_values
from pytest_chatdify_db.sandbox.relay import own_words
from pytest_chatdify_db.sandbox.transactions import Transaction

PARSE = wire.message(b"P", b"name\0SELECT 1\0\0\0")
STREAM = PARSE + wire.FLUSH + wire.query("SELECT 2") + PARSE + wire.SYNC + wire.message(b"d", b"data") + wire.COPY_DONE
UNITS = ["PH", "Q", "PS", "dc"]


def client() -> Client:
    """Return a client that has logged in."""
    return Client(7, b"key!", stage=Stage.READY)


def kinds(client: Client) -> list[str]:
    """Return the units that wait, as type letters."""
    return ["".join(chr(message.kind) for message in unit) for unit in client.units]


@pytest.mark.parametrize("size", [1, 2, 7, len(STREAM)])
def test_units_do_not_depend_on_how_bytes_arrive(size: int) -> None:
    """One by one, in pieces or whole, with the beginning of a further message behind them."""
    fed = client()
    for start in range(0, len(STREAM), size):
        fed.feed(STREAM[start : start + size])
        fed.cut()
    fed.feed(PARSE[:-1])
    fed.cut()

    assert kinds(fed) == UNITS

    fed.feed(PARSE[-1:] + wire.SYNC)
    fed.cut()

    assert kinds(fed) == [*UNITS, "PS"]
    assert fed.units[-1][0].encoded == PARSE


def test_nothing_counts_after_terminate() -> None:
    """What comes behind it is not looked at."""
    gone = client()
    gone.feed(wire.TERMINATE + b"not a message")
    gone.cut()

    assert gone.stage is Stage.ENDED
    assert not gone.units


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x01\0\0\0\4", "invalid frontend message type 1"),
        (b"Q\0\0\0\3", "invalid message length"),
        (b"Q\x7f\xff\xff\xff", "invalid message length"),
    ],
)
def test_other_bytes_are_a_violation(data: bytes, text: str) -> None:
    """In the server's words."""
    wrong = client()
    wrong.feed(data)
    with pytest.raises(wire.ProtocolViolation, match=text):
        wrong.cut()


def test_a_password_is_taken_when_it_is_all_there() -> None:
    """And nothing else is taken for one."""
    packet = wire.message(b"p", b"secret\0")
    new = Client(7, b"key!")
    for at in range(len(packet)):
        assert new.take_password() is None
        new.feed(packet[at : at + 1])

    assert new.take_password() == b"secret"

    new.feed(wire.query("SELECT 1"))
    with pytest.raises(wire.ProtocolViolation, match="expected password response, got message type 81"):
        new.take_password()


def test_a_first_packet_is_taken_when_it_is_all_there() -> None:
    """What follows it stays for later."""
    packet = wire.startup({"user": "me"})
    new = Client(7, b"key!")
    new.feed(packet[:-1])

    assert new.take_first_packet() is None

    new.feed(packet[-1:] + b"more")

    assert new.take_first_packet() == packet


def test_the_status_is_the_clients_own() -> None:
    """In a transaction only if it began one; in a failed one after an error; in one of a pipeline until Sync."""
    idle = client()

    assert (idle.status, idle.in_transaction) == ("I", False)

    idle.transaction = Transaction(7, implicit=True)
    assert (idle.status, idle.in_transaction) == ("I", False)

    idle.mid_pipeline = True
    assert idle.status == "T"

    idle.transaction = Transaction(7)
    assert (idle.status, idle.in_transaction) == ("T", True)

    idle.transaction.failed = True
    assert idle.status == "E"


def test_notifications_wait_for_the_end_of_a_transaction() -> None:
    """An idle client has them at once, another one before it is told that it may go on."""
    listener = client()
    listener.notify(b"at once")
    listener.transaction = Transaction(7)
    listener.notify(b"later")

    assert bytes(listener.out) == b"at once"

    listener.ready()
    listener.transaction = None
    listener.ready()

    assert bytes(listener.out) == b"at once" + wire.READY["T"] + b"later" + wire.READY["I"]


def test_statements_have_names_of_their_client_on_the_server() -> None:
    """The unnamed one stays unnamed."""
    name, prepared = names.prepare(client(), b"mine\0SELECT 1\0\0\0", None)

    assert (name, prepared.name) == (b"mine", b"chatdify.7.mine")
    assert prepared.parse == wire.message(b"P", b"chatdify.7.mine\0SELECT 1\0\0\0")
    assert names.prepare(client(), b"\0SELECT 1\0\0\0", None)[1].name == b""


def test_long_names_of_statements_differ_on_the_server() -> None:
    """Where the first 63 bytes differ, all that PostgreSQL takes of a name; messages tell the client's own."""
    own, name = client(), b"n" * 62

    named = {names.prepare(own, name + more + b"\0SELECT 1\0\0\0", None)[1].name for more in (b"a", b"b", b"bc")}
    assert len(named) == 2
    assert all(len(each) <= 63 for each in named)
    for server_name in named:
        message = wire.error("42P05", f'prepared statement "{server_name.decode()}" already exists')
        said = wire.error_fields(own_words(own, message)[5:])["M"]
        assert said.startswith(f'prepared statement "{"n" * 62}')
    (statement,) = sql.parse(b"prepare " + name + b"bcd as select 1")
    assert names.prepared_by_sql(own, statement).name in named


def test_several_statements_are_prepared_as_nothing_known() -> None:
    """The server has the error for them; for none at all there is nothing to do."""
    _, several = names.prepare(client(), b"\0SELECT 1; SELECT 2\0\0\0", None)
    _, none = names.prepare(client(), b"\0-- nothing\0\0\0", None)

    assert (several.statement, several.is_empty) == (None, False)
    assert (none.statement, none.is_empty) == (None, True)


def test_bound_values_are_read_as_text() -> None:
    """Whatever formats they are announced in; a body that ends early is a violation."""
    values = wire.pack_int16(2) + wire.pack_int32(1) + b"a" + wire.pack_int32(-1)
    body = wire.pack_int16(1) + wire.pack_int16(0) + values

    assert bound_values(body, 0) == ("a", None)
    with pytest.raises(wire.ProtocolViolation, match="invalid message format"):
        bound_values(body[:7], 0)


def test_a_warning_is_for_who_wants_it() -> None:
    """Not for a client that wants to hear of errors only."""
    own = client()
    assert own.warning("25P01", "no") == wire.notice("25P01", "no")
    own.parameters.start({"client_min_messages": "error"})

    assert own.warning("25P01", "no") == b""


def test_a_message_is_its_bytes() -> None:
    """What was cut is encoded as it came."""
    assert Message(ord("Q"), b"SELECT 1\0").encoded == wire.query("SELECT 1")
