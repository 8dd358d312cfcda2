"""The points that whoever stands between a client and PostgreSQL must mind, each by a test that names it.

Points that a script of messages can show are proven by scripts of the corpus, named here; the others have a test below.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg2
import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.connection import connect
from pytest_chatdify_db.postgres.errors import ServerError
from pytest_chatdify_db.sandbox.handle import SandboxError

from .differential import Conversation, corpus
from .scripts import Step, show, split
from .stage import PASSWORD, Stage, StagedSandbox

#: Points of the protocol, and words in titles of scripts that show them.
SHOWN_BY_SCRIPTS = {
    "1 start-up": ("connecting tells the parameters", "protocol 3.2", "a start-up packet sets parameters"),
    "3 parameter status": ("parameters that are reported", "a report after a rollback", "settings of two clients"),
    "4 statement names": ("named statements of two clients", "unnamed statements of two clients"),
    "5 portal names": ("portals of two clients with the same name", "portals end with the transaction"),
    "6 close, PREPARE and DEALLOCATE": ("close", "SQL PREPARE shares its names with Parse", "PREPARE of two clients"),
    "7 flush": ("flush", "flush with an execute", "other clients between parse and bind"),
    "9 errors in a pipeline": ("after an error all is skipped until Sync", "a query after an error before Sync"),
    "10 the implicit transaction": ("two executes and an error are one transaction", "a failed transaction"),
    "11 the status byte": ("begin, commit, rollback", "a failed transaction"),
    "12 command tags": ("all spellings", "commit and rollback outside a transaction", "commit and chain"),
    "13 several statements": ("a transaction in one query", "a syntax error behind transaction control"),
    "14 prepared control": ("transaction control as prepared statements",),
    "15 copy": ("copy from stdin", "the client gives up", "wrong data", "binary copy"),
    "16 notifications": ("notify and listen", "notices reach the client", "notifications for another client"),
    "17 rare messages": ("a function call by message", "an empty query", "row limits", "describing control statements"),
}


@pytest.mark.parametrize("point", SHOWN_BY_SCRIPTS)
def test_point_is_in_the_corpus(point: str) -> None:
    """The scripts that show a point are in the corpus, where they are compared with the server."""
    titles = [script.title for _, script in corpus()]

    for words in SHOWN_BY_SCRIPTS[point]:
        assert any(title.startswith(words) for title in titles), words


def test_every_point_is_shown() -> None:
    """Of the 21 points none is left out: each is shown by a script or by a test whose name begins with its number."""
    by_scripts = {int(point.split()[0]) for point in SHOWN_BY_SCRIPTS}
    by_tests = {int(found[1]) for name in globals() if (found := re.match(r"test_(\d+)_", name))}

    assert by_scripts | by_tests == set(range(1, 22))


@contextmanager
def client(sandbox: StagedSandbox, **parameters: str) -> Iterator[Conversation]:
    """Give a logged-in connection that speaks in messages."""
    conversation = Conversation(sandbox.address, "A", parameters)
    try:
        yield conversation
    finally:
        conversation.close()


def say(conversation: Conversation, kind: str, rest: str = "") -> list[str]:
    """Send a message; return what is answered, in readable lines."""
    return [show(message) for message in conversation.do(Step("A", kind, rest))]


def raw(sandbox: StagedSandbox, *packets: bytes, answers: int = 1) -> bytes:
    """Send untyped packets and return the first bytes of the answer."""
    with socket.create_connection((sandbox.address.host, sandbox.address.port), timeout=10) as sock:
        heard = b""
        for packet in packets:
            sock.sendall(packet)
            heard += sock.recv(answers)
        return heard


def test_1_encryption_is_declined_and_the_startup_follows(sandbox: StagedSandbox) -> None:
    """SSLRequest and GSSENCRequest are answered by N, one after the other, and a start-up packet may follow."""
    request = [b"\0\0\0\x08" + wire.pack_int32(code) for code in (wire.GSSENC_REQUEST, wire.SSL_REQUEST)]
    startup = wire.startup({"user": "postgres", "database": "app"})

    assert raw(sandbox, *request, startup) == b"NNR"


def test_1_a_newer_protocol_is_negotiated(sandbox: StagedSandbox) -> None:
    """A client of a protocol to come is offered the newest that is known, and told which options are not."""
    packet = wire.startup({"user": "postgres", "database": "app", "_pq_.new": "1"}, 3 << 16 | 9)

    assert next(iter(split(raw(sandbox, packet, answers=26))))[:1] == b"v"


def test_1_replication_is_refused(sandbox: StagedSandbox) -> None:
    """A connection that wants to replicate is told that there is none."""
    packet = wire.startup({"user": "postgres", "database": "app", "replication": "database"})

    assert b"replication connections are not available" in raw(sandbox, packet, answers=200)


def test_2_each_client_has_a_key_of_its_own(sandbox: StagedSandbox) -> None:
    """Two clients have different process ids and keys, of four bytes in protocol 3.0 and 32 in 3.2."""
    with client(sandbox) as first, client(sandbox, protocol=str(wire.PROTOCOL_3_2)) as second:
        keys = [next(m for m in each.greeting if m[:1] == b"K") for each in (first, second)]

    assert [len(key) - 9 for key in keys] == [4, 32]
    assert keys[0][5:9] != keys[1][5:9]


def test_2_cancel_reaches_the_statement_that_runs(sandbox: StagedSandbox) -> None:
    """A client's cancel request ends its own statement, and its next one works."""
    connection = psycopg2.connect(sandbox.url)
    with connection.cursor() as cursor:
        canceller = threading.Timer(0.2, connection.cancel)
        canceller.start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute("SELECT pg_sleep(30)")
        canceller.join()
        connection.rollback()

        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    connection.close()


def test_2_a_wrong_or_foreign_cancel_key_does_nothing(sandbox: StagedSandbox) -> None:
    """A cancel request with a wrong key, or for another client, leaves the running statement alone."""
    with client(sandbox) as runner, client(sandbox) as other:
        pid = wire.int32(runner.pid)
        other_key = next(m[9:] for m in other.greeting if m[:1] == b"K")
        canceller = threading.Thread(
            target=lambda: [
                raw(sandbox, wire.cancel_request(pid, b"\0\0\0\0")),
                raw(sandbox, wire.cancel_request(wire.int32(other.pid), other_key)),
            ]
        )
        canceller.start()
        answers = say(runner, "Q", "SELECT pg_sleep(0.3)")
        canceller.join()

    assert answers[-2:] == ["C SELECT 1", "Z I"]


def test_8_a_client_that_never_ends_its_message_holds_nobody_up(sandbox: StagedSandbox) -> None:
    """While one client has sent half of its messages, and another is asked for COPY data, a third works."""
    with client(sandbox) as slow, client(sandbox) as copier, client(sandbox) as third:
        slow.do(Step("A", "P", "s insert into items (id) values (5)"))
        say(copier, "Q", "copy items (id) from stdin")

        assert say(third, "Q", "select count(*) from items")[1] == "D 3"

        say(copier, "d", "6\\n")
        assert say(copier, "c") == ["C COPY 1", "Z I"]


@pytest.mark.parametrize("last_words", [b"", wire.TERMINATE], ids=["dropped", "terminated"])
def test_18_a_client_that_goes_is_rolled_back(sandbox: StagedSandbox, last_words: bytes) -> None:
    """A client that ends or is cut off in a transaction leaves nothing of it, nor its statements and cursors."""
    gone = socket.create_connection((sandbox.address.host, sandbox.address.port))
    gone.sendall(wire.startup({"user": "postgres", "database": "app"}) + wire.message(b"p", PASSWORD.encode() + b"\0"))
    gone.sendall(wire.query("begin; insert into items (id) values (5); declare c cursor for select * from items"))
    heard = b""
    while not heard.endswith(wire.READY["T"]):
        heard += gone.recv(65536)
    gone.sendall(last_words)
    gone.close()

    with client(sandbox) as other:
        assert say(other, "Q", "begin; select count(*) from items")[2] == "D 3"
        assert say(other, "Q", "drop table items")[0] == "C DROP TABLE"


def test_19_the_death_of_the_server_is_told_and_survived(server: Stage, sandbox: StagedSandbox) -> None:
    """Every client is told when the session behind the sandbox is killed; after the test new ones work."""
    with client(sandbox) as idle, connect(server.address) as administrator:
        administrator.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
            f"'{sandbox.behind.database}' AND pid <> pg_backend_pid()"
        )

        answers = say(idle, "wait", "E")
        assert answers[0].startswith("E 57P01 terminating connection because the test server has gone away")

    assert "terminating connection" in sandbox.pop().lost
    sandbox.push("the next test")
    with connect(sandbox.address) as next_client:
        assert next_client.query("SELECT count(*) FROM items") == [("3",)]


def test_19_whose_statement_ends_the_session_has_the_servers_own_words(sandbox: StagedSandbox) -> None:
    """They come once, and nothing of the sandbox's behind them; the other clients hear that the server has gone."""
    with client(sandbox) as guilty, client(sandbox) as other:
        guilty.send(wire.query("select pg_terminate_backend(pg_backend_pid())"))

        assert say(other, "wait", "E")[0].startswith("E 57P01 terminating connection because the test server has gone")
        told = [line.partition(" F=")[0] for line in say(guilty, "wait", "Z") if line.startswith("E")]
    assert told == ["E 57P01 terminating connection due to administrator command", "E None connection closed"]


def test_20_a_statement_left_running_does_not_hold_up_the_end_of_the_test(sandbox: StagedSandbox) -> None:
    """What still runs when its test ends is cancelled, and the frame is undone."""
    runner = psycopg2.connect(sandbox.url)
    failed: list[BaseException] = []

    def run() -> None:
        with runner.cursor() as cursor:
            try:
                cursor.execute("INSERT INTO items (id) VALUES (5); SELECT pg_sleep(60)")
            except psycopg2.Error as error:
                failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    with connect(sandbox.behind) as direct:
        while not direct.query("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            pass
    sandbox.pop()
    thread.join()
    runner.close()

    assert isinstance(failed[0], psycopg2.errors.QueryCanceled)
    with connect(sandbox.address) as other:
        assert other.query("SELECT count(*) FROM items") == [("3",)]


def test_21_a_client_that_does_not_read_holds_nobody_up(sandbox: StagedSandbox) -> None:
    """A result of many megabytes for a client that reads none of it does not delay another client."""
    with client(sandbox) as greedy, client(sandbox) as other:
        greedy.send(wire.query("select repeat('x', 1000) from generate_series(1, 30000)"))

        assert say(other, "Q", "select 1")[1] == "D 1"
        assert say(greedy, "wait", "Z")[-2:] == ["C SELECT 30000", "Z I"]


def test_security_only_this_run_may_connect(sandbox: StagedSandbox) -> None:
    """A wrong password, another role and another database are refused, with the SQLSTATE of PostgreSQL."""
    wrong = {
        "28P01": replace(sandbox.address, password="guess"),
        "28P01 ": replace(sandbox.address, user="somebody"),
        "3D000": sandbox.address.with_database("production"),
    }

    for sqlstate, address in wrong.items():
        with pytest.raises(ServerError) as refused:
            connect(address)
        assert refused.value.sqlstate == sqlstate.strip()


def test_a_stopped_sandbox_says_so(server: Stage) -> None:
    """Asked after its end, the handle raises an error that says that the process has ended."""
    with server.sandbox() as sandbox:
        sandbox.handle.stop()

        with pytest.raises((SandboxError, ValueError)):
            sandbox.push("another test")
