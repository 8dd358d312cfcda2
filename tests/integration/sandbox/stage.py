"""A PostgreSQL server and sandboxes on it, for tests and for commands; no pytest and none of the plugin's fixtures.

Every sandbox and every direct session works in a clone of one template database, so both begin with the same rows.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pytest_chatdify_db import servers
from pytest_chatdify_db.postgres.address import Address
from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.sandbox.handle import FrameReport, Sandbox
from pytest_chatdify_db.servers import admin
from pytest_chatdify_db.servers.run import Run

TEMPLATE: Final = "stage_template"
USER: Final = "postgres"
PASSWORD: Final = "pw"
DATABASE: Final = "app"

SCHEMA: Final = """
CREATE TABLE items (id int PRIMARY KEY, name text UNIQUE, price numeric CHECK (price >= 0));
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE children (
    id int PRIMARY KEY,
    parent_id int NOT NULL CONSTRAINT children_parent REFERENCES parents DEFERRABLE INITIALLY DEFERRED,
    slot int CONSTRAINT children_slot UNIQUE DEFERRABLE INITIALLY IMMEDIATE
);
CREATE FUNCTION add_item(int, text) RETURNS int LANGUAGE sql AS
    'INSERT INTO items (id, name) VALUES ($1, $2) RETURNING id';
CREATE PROCEDURE add_and_commit(int) LANGUAGE plpgsql AS
    'BEGIN INSERT INTO items (id) VALUES ($1); COMMIT; END';
CREATE FUNCTION complain(text) RETURNS void LANGUAGE plpgsql AS
    'BEGIN RAISE NOTICE ''%'', $1; END';
CREATE ROLE clerk;
GRANT SELECT ON items TO clerk;
INSERT INTO items (id, name, price) VALUES (1, 'one', 1.5), (2, 'two', 2.5), (3, 'three', NULL);
INSERT INTO parents VALUES (1);
"""


class Stage:
    """A running server with the template database.

    Args:
        server: The server.
    """

    def __init__(self, server: servers.Server) -> None:
        self.server = server
        self._administration: Connection = connect(server.address)
        self._numbers = itertools.count(1)
        admin.create_database(self._administration, TEMPLATE)
        with connect(server.address.with_database(TEMPLATE)) as connection:
            connection.query(SCHEMA)

    @property
    def address(self) -> Address:
        """The server's address, with its maintenance database."""
        return self.server.address

    @contextmanager
    def clone(self, template: str = TEMPLATE) -> Iterator[Address]:
        """Give a new database like the template until the end of the block."""
        name = f"stage_{next(self._numbers)}"
        admin.create_database(self._administration, name, template=template, strategy="file_copy")
        try:
            yield self.server.address.with_database(name)
        finally:
            admin.drop_database(self._administration, name)

    @contextmanager
    def sandbox(self) -> Iterator[StagedSandbox]:
        """Give a sandbox on a clone of its own, with a frame pushed."""
        with self.clone() as address, running(address) as sandbox:
            sandbox.push("the test")
            yield sandbox

    def close(self) -> None:
        """Close the connection that creates and drops the databases."""
        self._administration.close()


@dataclass(frozen=True)
class StagedSandbox:
    """A running sandbox.

    Args:
        handle: What a test run holds of it.
        url: Where clients connect.
        address: The same as an address.
        behind: The database that the sandbox works in.
    """

    handle: Sandbox
    url: str
    address: Address
    behind: Address

    def push(self, name: str) -> None:
        """Open a frame."""
        self.handle.push(name)

    def pop(self) -> FrameReport:
        """Undo all since the matching push."""
        return self.handle.pop()


@contextmanager
def started() -> Iterator[Stage]:
    """Start the embedded server; it ends with the block."""
    run = Run.create()
    try:
        stage = Stage(servers.start("embedded", image="", run=run, progress=lambda line: None))
        try:
            yield stage
        finally:
            stage.close()
    finally:
        run.close()


@contextmanager
def running(behind: Address, *, password: str = PASSWORD) -> Iterator[StagedSandbox]:
    """Give a sandbox in the database *behind*; no frame is pushed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        handle = Sandbox.start(listener=listener, server=behind, user=USER, password=password, database=DATABASE)
    try:
        url = f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"
        yield StagedSandbox(handle, url, Address.from_url(url), behind)
    finally:
        handle.stop()
