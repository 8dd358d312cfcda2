"""What one transaction cannot show, as docs/limits.md says: each test shows a limit and what works next to it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg2
import pytest

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ServerError

from .differential import Conversation
from .scripts import Step, read, show
from .stage import Stage, StagedSandbox

OWN_DATABASE = 'isolation="database"'


@pytest.fixture
def first(sandbox: StagedSandbox) -> Iterator[Connection]:
    """A connection, closed after the test."""
    with connect(sandbox.address) as connection:
        yield connection


@pytest.fixture
def second(sandbox: StagedSandbox) -> Iterator[Connection]:
    """Another one."""
    with connect(sandbox.address) as connection:
        yield connection


def value(connection: Connection, sql: str) -> str | None:
    """Return the first value of the first row that *sql* gives."""
    return connection.query(sql)[0][0]


def test_statements_run_one_after_the_other(first: Connection, second: Connection) -> None:
    """Each begins when the one before it has ended, though two connections run them at once."""
    sql = "SELECT clock_timestamp(), pg_sleep(0.05), clock_timestamp()"
    with ThreadPoolExecutor() as pool:
        rows = [future.result()[0] for future in [pool.submit(each.query, sql) for each in (first, second)]]

    (_, _, ended), (began, _, _) = sorted(rows, key=lambda row: str(row[0]))
    assert str(ended) < str(began)


def test_a_connection_is_made_when_the_statement_before_it_has_ended(sandbox: StagedSandbox, first: Connection) -> None:
    """It is greeted in its turn, though the statement's client has gone; so a statement cannot connect to itself."""
    first.query("CREATE TABLE ended AS SELECT NULL::timestamptz AS at")
    with closing(Conversation(sandbox.address, "A", {})) as client:
        update = "UPDATE ended SET at = clock_timestamp() FROM (SELECT pg_sleep(0.05)) AS slept"
        client.send(wire.query(update) + wire.TERMINATE)
        with connect(sandbox.address) as connection:
            assert value(connection, "SELECT at < clock_timestamp() FROM ended") == "t"


def test_time_stands_still(first: Connection, second: Connection) -> None:
    """now() is the start of the shared transaction, in every transaction of every client; clock_timestamp() moves."""
    began = value(first, "SELECT now()")
    first.query("BEGIN")
    again, clock = first.query("SELECT now(), clock_timestamp() > now()")[0]
    first.query("COMMIT")

    assert (began, clock) == (again, "t")
    assert value(second, "SELECT now()") == began


def test_sequences_do_not_go_back(sandbox: StagedSandbox, first: Connection) -> None:
    """What a test has drawn from a sequence is not there for the next one."""
    sandbox.push("outer")
    first.query("CREATE SEQUENCE numbers")
    sandbox.push("the first test")
    assert value(first, "SELECT nextval('numbers')") == "1"
    sandbox.pop()
    sandbox.push("the second test")

    assert value(first, "SELECT nextval('numbers')") == "2"


def test_what_analyze_counts_is_not_undone(sandbox: StagedSandbox, first: Connection) -> None:
    """The next test's plans go by the rows that a test had when it asked for ANALYZE."""
    found = "SELECT reltuples FROM pg_class WHERE relname = 'parents'"
    sandbox.push("the first test")
    first.query("DELETE FROM parents")
    first.query("INSERT INTO parents SELECT generate_series(1, 7)")
    first.query("ANALYZE parents")
    sandbox.pop()
    sandbox.push("the second test")

    assert value(first, "SELECT count(*) FROM parents") == "1"
    assert value(first, found) == "7"
    first.query("ANALYZE parents")


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("VACUUM items", "VACUUM cannot run inside a transaction block"),
        ("CREATE INDEX CONCURRENTLY i ON items (name)", "cannot run inside a transaction block"),
        ("CREATE DATABASE another", "cannot run inside a transaction block"),
        ("CALL add_and_commit(9)", "invalid transaction termination"),
        ("DO 'BEGIN COMMIT; END'", "invalid transaction termination"),
        ("COMMIT PREPARED 'x'", "COMMIT PREPARED cannot run inside a transaction block"),
        ("BEGIN; PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION is not available in this test"),
        ("BEGIN; SELECT 'blue'::color", 'unsafe use of new value "blue"'),
    ],
)
def test_what_needs_to_be_outside_a_transaction_says_so(sandbox: StagedSandbox, statement: str, text: str) -> None:
    """It fails with the server's error or the sandbox's, and the hint is the way out."""
    client = Conversation(sandbox.address, "A", {})
    for earlier in ("CREATE TYPE color AS ENUM ('red')", "ALTER TYPE color ADD VALUE 'blue'"):
        client.do(Step("A", "Q", earlier))
    *_, error, _ = map(show, client.do(Step("A", "Q", statement)))
    client.close()

    assert text in error
    assert OWN_DATABASE in error.partition("H=")[2]


def test_a_setting_inside_a_function_leaks(first: Connection, second: Connection) -> None:
    """SET in a function outlives the transaction and reaches other clients; in the text of a statement it does not."""
    first.query("CREATE FUNCTION slow() RETURNS void LANGUAGE plpgsql AS 'BEGIN SET LOCAL work_mem = ''3MB''; END'")
    usual = value(second, "SHOW work_mem")
    first.query("BEGIN; SET LOCAL work_mem = '2MB'; COMMIT")
    assert value(second, "SHOW work_mem") == value(first, "SHOW work_mem") == usual

    first.query("BEGIN; SELECT slow(); COMMIT")
    assert value(second, "SHOW work_mem") == "3MB"


@pytest.mark.parametrize(
    ("sql", "is_seen"),
    [
        ("SELECT set_config('work_mem', '3MB', false)", False),
        ("SELECT set_config('work_' || 'mem', '3MB', false)", True),
        ("UPDATE pg_settings SET setting = '3MB' WHERE name = 'work_mem'", True),
    ],
)
def test_a_setting_whose_name_is_not_in_the_text_leaks(
    first: Connection, second: Connection, sql: str, *, is_seen: bool
) -> None:
    """It reaches other clients; one that names the parameter does not."""
    first.query(sql)

    assert (value(second, "SHOW work_mem") == "3MB") is is_seen


def test_settings_of_a_role_are_for_new_sessions(sandbox: StagedSandbox, first: Connection) -> None:
    """A new connection gets none of the server's, and does not have them; SET reaches its own connection at once."""
    first.query("ALTER ROLE postgres SET work_mem = '3MB'")
    with connect(sandbox.address) as new:
        assert value(new, "SHOW work_mem") != "3MB"
        new.query("SET work_mem = '3MB'")
        assert value(new, "SHOW work_mem") == "3MB"


def test_a_custom_setting_that_another_client_has_used_is_empty(first: Connection, second: Connection) -> None:
    """It is an empty string, as on a connection that has had it before, where a new connection would have NULL."""
    assert value(second, "SELECT current_setting('app.tenant', true)") is None
    first.query("BEGIN; SET LOCAL app.tenant = 'one'; COMMIT")

    assert value(second, "SELECT current_setting('app.tenant', true)") == ""


@pytest.mark.parametrize(
    ("notify", "is_heard"),
    [
        ("NOTIFY news, 'x'", True),
        ("SELECT pg_notify('news', 'x')", True),
        ("SELECT pg_notify('ne' || 'ws', 'x')", False),
        ("SELECT tell()", False),
        ("INSERT INTO told VALUES (1)", False),
    ],
)
def test_a_notification_inside_a_function_is_not_heard(
    sandbox: StagedSandbox, first: Connection, notify: str, *, is_heard: bool
) -> None:
    """One from a function, a trigger or with a computed channel reaches no listener; one in plain words does."""
    first.query("CREATE TABLE told (id int)")
    first.query("CREATE FUNCTION tell() RETURNS void LANGUAGE sql AS 'SELECT pg_notify(''news'', ''x'')'")
    first.query("CREATE FUNCTION telling() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM tell(); RETURN NEW; END'")
    first.query("CREATE TRIGGER t AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION telling()")
    listener = Conversation(sandbox.address, "A", {})
    listener.send(wire.query("LISTEN news"))
    first.query(notify)
    listener.send(wire.query("SELECT 1"))

    heard = [show(message) for message in listener.close()]
    assert ("A news x" in heard) is is_heard


def test_a_cursor_that_a_function_returns_stays_open(first: Connection, second: Connection) -> None:
    """It outlives its client's transaction; one that the client has declared does not."""
    first.query(
        "CREATE FUNCTION opened() RETURNS refcursor LANGUAGE plpgsql AS"
        " 'DECLARE c refcursor := ''of_function''; BEGIN OPEN c FOR SELECT 1; RETURN c; END'"
    )
    first.query("BEGIN; SELECT opened(); DECLARE of_client CURSOR FOR SELECT 1; COMMIT")

    open_cursors = "SELECT name FROM pg_cursors WHERE name LIKE 'of_%'"
    assert second.query(open_cursors) == [("of_function",)]


def test_listen_in_a_function_makes_nobody_a_listener(sandbox: StagedSandbox, first: Connection) -> None:
    """One in a client's own words does."""
    listener = Conversation(sandbox.address, "A", {})
    listener.do(Step("A", "Q", "DO 'BEGIN EXECUTE ''LISTEN hidden''; END'"))
    listener.do(Step("A", "Q", "LISTEN open"))
    first.query("NOTIFY hidden, 'x'; NOTIFY open, 'y'")
    listener.send(wire.query("SELECT 1"))

    heard = [show(message) for message in listener.close()]
    assert [line for line in heard if line.startswith("A ")] == ["A open y"]


@pytest.mark.parametrize("has_own_database", [False, True])
def test_a_function_does_not_know_what_was_prepared(
    server: Stage, sandbox: StagedSandbox, *, has_own_database: bool
) -> None:
    """The statement has another name on the server, in a database of its own too; the client itself has it."""
    with server.clone() as database:
        sandbox.handle.use_database(database if has_own_database else None, "test")
        with connect(sandbox.address) as client:
            client.query("PREPARE p AS SELECT 1")
            with pytest.raises(ServerError, match='prepared statement "p" does not exist'):
                client.query("DO 'BEGIN EXECUTE ''EXECUTE p''; END'")
            assert value(client, "EXECUTE p") == "1"
            assert str(value(client, "SELECT name FROM pg_prepared_statements")).endswith(".p")
        sandbox.handle.use_database(None, "test")


def test_what_sql_says_of_prepared_statements_holds_on_its_side(server: Stage, sandbox: StagedSandbox) -> None:
    """A driver's statement is there in a database of the test's own and behind it; what PREPARE has made is not."""
    client = Conversation(sandbox.address, "A", {})

    def said(*lines: str) -> str:
        script = next(read("\n".join(["== said", *(f"A: {line}" for line in lines)])))
        return [show(message) for step in script.steps for message in client.do(step)][-2]

    execution = ("B - s", "E -", "S")
    said("P s select 7", "S")
    said("Q prepare p as select 1")
    with server.clone() as database:
        sandbox.handle.use_database(database, "test")
        assert said(*execution) == "C SELECT 1"
        assert said("Q execute p").startswith("E 26000")
        assert said("Q prepare q as select 1") == "C PREPARE"
        assert said("Q deallocate s") == "C DEALLOCATE"
        assert said(*execution).startswith("E 26000")
        sandbox.handle.use_database(None, "test")

    assert said(*execution) == "C SELECT 1"
    assert said("Q execute p") == "C SELECT 1"
    assert said("Q execute q").startswith("E 26000")
    client.close()


def test_what_is_set_in_a_database_of_its_own_is_forgotten(
    server: Stage, sandbox: StagedSandbox, first: Connection
) -> None:
    """What was set before is there, and is there again."""
    first.query("SET work_mem = '3MB'")
    with server.clone() as database:
        sandbox.handle.use_database(database, "test")
        assert value(first, "SHOW work_mem") == "3MB"
        first.query("SET work_mem = '5MB'")
        sandbox.handle.use_database(None, "test")

    assert value(first, "SHOW work_mem") == "3MB"


def test_a_setting_of_a_prepared_statement_leaks(first: Connection, second: Connection) -> None:
    """The text that runs is EXECUTE's."""
    first.query("PREPARE p AS SELECT set_config('app.t', 'seen', true)")
    first.query("BEGIN; EXECUTE p; COMMIT")

    assert value(second, "SELECT current_setting('app.t', true)") == "seen"


@pytest.mark.parametrize("is_selected", [True, False])
def test_a_deferrable_constraint_of_a_function(first: Connection, *, is_selected: bool) -> None:
    """Behind a COMMIT that was checked it is an immediate one, unless DO has made it, or until a table is changed."""
    first.query("BEGIN; INSERT INTO parents VALUES (7); INSERT INTO children VALUES (7, 7); COMMIT")
    making = "BEGIN CREATE TABLE made (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED); END"
    first.query(f"CREATE FUNCTION make() RETURNS void LANGUAGE plpgsql AS '{making}'")
    first.query("SELECT make()" if is_selected else f"DO '{making}'")
    twice = "INSERT INTO made VALUES (1); INSERT INTO made VALUES (1); DELETE FROM made; COMMIT"

    if is_selected:
        with pytest.raises(ServerError, match="duplicate key"):
            first.query(f"BEGIN; {twice}")
        first.query("ROLLBACK; ALTER TABLE made ADD COLUMN more int")
    first.query(f"BEGIN; {twice}")


def test_rows_of_a_held_cursor_are_made_as_they_are_fetched(first: Connection) -> None:
    """What is wrong with one is told with FETCH, where the server would have told it with COMMIT."""
    first.query("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1 / (2 - n) FROM generate_series(1, 2) n; COMMIT")

    assert value(first, "FETCH c") == "1"
    with pytest.raises(ServerError, match="division by zero"):
        first.query("FETCH c")


def test_a_lock_of_a_wider_fixture_ends_with_that_of_a_test(sandbox: StagedSandbox, first: Connection) -> None:
    """It outlives a test that takes none, and not one that does."""
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    first.query("SELECT pg_advisory_lock(1)")
    sandbox.push("takes none")
    sandbox.pop()
    assert value(first, held) == "1"

    sandbox.push("takes one")
    first.query("SELECT pg_advisory_lock(2), pg_advisory_unlock(2)")
    sandbox.pop()
    assert value(first, held) == "0"


def test_no_tls(sandbox: StagedSandbox) -> None:
    """A driver that insists on it says so; one that would take it goes on without."""
    with closing(psycopg2.connect(sandbox.url, sslmode="prefer")) as connection:
        assert not connection.info.ssl_in_use
    with pytest.raises(psycopg2.OperationalError, match="server does not support SSL"):
        psycopg2.connect(sandbox.url, sslmode="require")


def test_a_definition_is_a_write_though_it_changes_nothing(first: Connection, second: Connection) -> None:
    """Its command tag says nothing of it, so it cannot be rolled back below another client's writes."""
    first.query("BEGIN; CREATE TABLE IF NOT EXISTS items (id int)")
    second.query("INSERT INTO items (id) VALUES (50)")
    first.query("ROLLBACK")

    with pytest.raises(ServerError, match="got into each other's way"):
        second.query("SELECT * FROM items")


def test_a_temporary_table_of_a_function_is_everybodys(sandbox: StagedSandbox, second: Connection) -> None:
    """One that no statement of a client names as temporary is seen by others, and outlives its connection."""
    with connect(sandbox.address) as gone:
        gone.query("DO 'BEGIN CREATE TEMP TABLE shared AS SELECT 7 AS id; END'")

    assert value(second, "SELECT id FROM shared") == "7"


def test_what_a_search_path_makes_temporary_is_everybodys(sandbox: StagedSandbox, second: Connection) -> None:
    """The text of the statement that makes the table does not say that it is temporary."""
    with connect(sandbox.address) as gone:
        gone.query("SET search_path = pg_temp, public")
        gone.query("CREATE TABLE shared AS SELECT 7 AS id")

    assert value(second, "SELECT id FROM pg_temp.shared") == "7"


def test_a_temporary_function_is_everybodys(sandbox: StagedSandbox, second: Connection) -> None:
    """Likewise types and domains: only tables, views and sequences are told apart by their clients."""
    with connect(sandbox.address) as gone:
        gone.query("CREATE FUNCTION pg_temp.seven() RETURNS int LANGUAGE sql AS 'SELECT 7'")

    assert value(second, "SELECT pg_temp.seven()") == "7"


def test_a_temporary_sequence_in_a_string_is_anybodys(first: Connection, second: Connection) -> None:
    """What stands in a string is no name to the sandbox."""
    first.query("CREATE TEMP SEQUENCE numbers")
    first.query("SELECT nextval('numbers')")

    assert value(second, "SELECT nextval('numbers')") == "2"


def test_lastval_speaks_of_whoever_drew_last(first: Connection, second: Connection) -> None:
    """lastval() gives the number that another client has drawn, and currval() of a sequence that only it has used."""
    first.query("CREATE SEQUENCE mine; CREATE SEQUENCE theirs START 100")
    first.query("SELECT nextval('mine')")
    second.query("SELECT nextval('theirs')")

    assert first.query("SELECT lastval(), currval('theirs')") == [("100", "100")]
    assert first.query("SELECT currval('mine')") == [("1",)]


def test_an_unlock_may_release_anothers_advisory_lock(first: Connection, second: Connection) -> None:
    """The server has one session, and releases what that holds."""
    first.query("SELECT pg_advisory_lock(1)")

    assert value(second, "SELECT pg_advisory_unlock(1)") == "t"
    assert value(first, "SELECT pg_advisory_unlock(1)") == "f"


def test_unlock_all_releases_everybodys_advisory_locks(first: Connection, second: Connection) -> None:
    """What asyncpg's pool sends releases another client's lock too; an unlock of one's own lock does not."""
    first.query("SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
    second.query("SELECT pg_advisory_lock(3), pg_advisory_unlock(3)")
    assert value(first, "SELECT pg_advisory_unlock(1)") == "t"

    second.query("SELECT pg_advisory_unlock_all()")
    assert value(first, "SELECT pg_advisory_unlock(2)") == "f"


def test_the_transaction_has_one_number(first: Connection, second: Connection) -> None:
    """pg_current_xact_id() is the same in all transactions of all clients."""
    number = value(first, "SELECT pg_current_xact_id()")

    assert value(second, "SELECT pg_current_xact_id()") == number


def test_all_clients_are_one_session_to_the_server(first: Connection, second: Connection) -> None:
    """They have one process id there, one row in pg_stat_activity, and see each other's cursors and statements."""
    assert value(first, "SELECT pg_backend_pid()") == value(second, "SELECT pg_backend_pid()")
    assert value(first, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == "1"
    first.query("BEGIN; DECLARE of_first CURSOR FOR SELECT 1")
    first.query("PREPARE of_first AS SELECT 1")

    assert second.query("SELECT name FROM pg_cursors") == [("of_first",)]
    assert str(value(second, "SELECT name FROM pg_prepared_statements")).endswith("of_first")
    assert value(second, "SELECT count(*) > 0 FROM pg_locks WHERE mode = 'AccessShareLock'") == "t"


def test_the_level_of_a_transaction_that_reads_is_not_shown(first: Connection) -> None:
    """It is that of the shared transaction."""
    first.query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY")

    assert value(first, "SHOW transaction_isolation") == "read committed"
    first.query("COMMIT; BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE")
    assert value(first, "SHOW transaction_deferrable") == "off"


def test_a_notification_for_no_row_is_heard(sandbox: StagedSandbox, first: Connection) -> None:
    """The sandbox reads the call, and does not count the rows; one that is not called at all is none."""
    listener = Conversation(sandbox.address, "A", {})
    listener.send(wire.query("LISTEN news"))
    first.query("SELECT pg_notify('news', 'row') WHERE false")
    first.query("SELECT $$pg_notify('news', 'string')$$ /* pg_notify('news', 'comment') */")
    listener.send(wire.query("SELECT 1"))

    heard = [show(message) for message in listener.close()]
    assert [line for line in heard if line.startswith("A ")] == ["A news row"]


def test_a_large_object_stays_open_when_its_transaction_ends(first: Connection, second: Connection) -> None:
    """Its descriptor can still be used, and the next one has another number, whoever opens it."""
    number = value(first, "SELECT lo_from_bytea(0, 'abc')")
    first.query("BEGIN")
    assert value(first, f"SELECT lo_open({number}, 262144)") == "0"
    first.query("COMMIT")

    assert value(first, "SELECT loread(0, 3)") == "\\x616263"
    assert value(second, f"SELECT lo_open({number}, 262144)") == "1"


def test_a_client_may_be_idle_for_longer_than_its_limit(first: Connection, second: Connection) -> None:
    """Limits of time that end a session end nobody's, however short."""
    first.query("SET idle_in_transaction_session_timeout = 1; SET transaction_timeout = 1; BEGIN")
    second.query("SELECT pg_sleep(0.05)")
    assert value(first, "SELECT count(pg_sleep(0.05))") == "1"

    first.query("SET idle_in_transaction_session_timeout = '1h'; SET transaction_timeout = '2h'")
    assert value(first, "SHOW idle_in_transaction_session_timeout") == "1h"
    assert value(second, "SHOW idle_in_transaction_session_timeout") == "0"


def test_a_function_does_not_find_a_limit_that_ends_a_session(first: Connection) -> None:
    """It is there for a statement that speaks of it, and for no other."""
    first.query(
        "CREATE FUNCTION idle() RETURNS text LANGUAGE plpgsql AS"
        " 'BEGIN RETURN current_setting(''idle_session_timeout''); END'"
    )
    first.query("SET idle_session_timeout = '1h'")

    assert first.query("SELECT current_setting('idle_session_timeout'), idle()") == [("1h", "1h")]
    assert value(first, "SELECT idle()") == "0"


def test_a_cursor_with_hold_keeps_its_tables_in_use(first: Connection, second: Connection) -> None:
    """PostgreSQL would have copied its rows at COMMIT; here it goes on reading, until it is closed."""
    first.query("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM items")
    with pytest.raises(ServerError, match='cannot TRUNCATE "items" because it is being used by active queries'):
        second.query("TRUNCATE items")

    first.query("CLOSE c")
    second.query("TRUNCATE items")
    assert value(second, "SELECT count(*) FROM items") == "0"


def test_a_snapshot_is_not_handed_on(first: Connection, second: Connection) -> None:
    """The shared transaction can neither export its own nor take another one."""
    with pytest.raises(ServerError, match="cannot export a snapshot from a subtransaction"):
        first.query("SELECT pg_export_snapshot()")

    second.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    with pytest.raises(ServerError, match="a snapshot of another transaction is not available in this test"):
        second.query("SET TRANSACTION SNAPSHOT '00000003-0000001B-1'")


def test_wrong_data_of_a_copy_is_reported_at_its_end(sandbox: StagedSandbox) -> None:
    """The server gets the data when all of it is there."""
    client = Conversation(sandbox.address, "A", {})
    client.do(Step("A", "Q", "COPY items (id) FROM STDIN"))
    client.send(wire.message(b"d", b"wrong\n") + wire.SYNC + wire.COPY_DONE + wire.query("SELECT"))

    heard = b"".join(message[:1] for message in client.close()).decode()
    assert heard == "EZTDCZ"  # and no answer to Sync, as data was still expected


def test_the_server_knows_of_no_channel(first: Connection) -> None:
    """The sandbox itself keeps who listens to what."""
    first.query("LISTEN news")

    assert first.query("SELECT pg_listening_channels()") == []


def test_the_server_does_not_know_a_connections_process_id(first: Connection, second: Connection) -> None:
    """What a driver was told is for cancel requests, which the sandbox takes."""
    assert value(first, f"SELECT pg_terminate_backend({second.pid})") == "f"

    assert value(second, "SELECT 1") == "1"


def test_constraints_made_immediate_while_anothers_rows_fail(first: Connection, second: Connection) -> None:
    """The server checks the rows of both; said before there are such rows, it would wait for COMMIT."""
    first.query("BEGIN; INSERT INTO children VALUES (1, 99)")
    with pytest.raises(ServerError, match="children_parent"):
        second.query("BEGIN; SET CONSTRAINTS ALL IMMEDIATE")
