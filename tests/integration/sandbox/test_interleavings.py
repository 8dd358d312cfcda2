"""Random interleavings of several clients on a real server: each matches the model or ends in the conflict error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings

from pytest_chatdify_db.postgres.connection import Connection, connect
from pytest_chatdify_db.postgres.errors import ServerError
from tests.interleavings import Model, Step, programs

from .stage import Stage, StagedSandbox

_CLIENTS = 4
_ROWS = "SELECT id FROM log"
_STATEMENTS = {
    "fail": "SELECT 1/0",
    "read": _ROWS,
    "begin": "BEGIN",
    "commit": "COMMIT",
    "rollback": "ROLLBACK",
    "savepoint": "SAVEPOINT {}",
    "rollback_to": "ROLLBACK TO {}",
    "release": "RELEASE {}",
}
#: A division by zero, a savepoint outside a transaction, a statement in a failed one, an unknown savepoint.
_EXPECTED = {"22012", "25P01", "25P02", "3B001"}
_CONFLICT = "this test's connections have got into each other's way: a rollback could not be done"


class Party:
    """The clients of one program, and one more that only reads."""

    def __init__(self, sandbox: StagedSandbox) -> None:
        self.sandbox = sandbox
        self.observer = connect(sandbox.address)
        self.clients = {number: connect(sandbox.address) for number in range(1, _CLIENTS + 1)}
        self.observer.query("CREATE TABLE log (id int PRIMARY KEY)")

    def close(self) -> None:
        """Disconnect all."""
        for connection in (self.observer, *self.clients.values()):
            connection.close()

    def play(self, program: list[Step]) -> None:
        """Run *program* in a frame and compare what each client is told with the model."""
        self.sandbox.push("program")
        model = Model()
        try:
            for step in program:
                if (conflict := self._step(step, model)) is not None:
                    assert str(conflict).startswith(_CONFLICT)
                    assert model.may_conflict
                    break
        finally:
            self.sandbox.pop()
            for client in self.clients.values():
                client.query("ROLLBACK")
        assert rows(self.observer) == set()

    def _step(self, step: Step, model: Model) -> ServerError | None:
        """Do one step; return the conflict if it was answered with one."""
        client, row = self.clients[step.client], model.next_row
        status = model.take(step)
        try:
            _send(client, step, row)
            seen = rows(self.observer)
        except ServerError as error:
            if error.sqlstate != "40001":
                raise
            return error
        assert client.status == status
        assert not model.disagrees(seen)
        return None


def _send(client: Connection, step: Step, row: int) -> None:
    statement = f"INSERT INTO log VALUES ({row})" if step.verb == "write" else _STATEMENTS[step.verb]
    try:
        client.query(statement.format(step.name))
    except ServerError as error:
        if error.sqlstate not in _EXPECTED:
            raise


def rows(connection: Connection) -> set[int]:
    """Return the rows that are there."""
    return {int(row[0] or 0) for row in connection.query(_ROWS)}


@pytest.fixture(scope="module")
def party(server: Stage) -> Iterator[Party]:
    """Give clients of one sandbox."""
    with server.sandbox() as sandbox:
        party = Party(sandbox)
        yield party
        party.close()


@settings(max_examples=60, deadline=None)
@given(program=programs(clients=_CLIENTS, longest=25))
def test_clients_see_what_the_model_says(party: Party, program: list[Step]) -> None:
    """Whatever the clients do, their rows and status are the model's, until a conflict that the contract allows."""
    party.play(program)
