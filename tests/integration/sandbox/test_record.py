"""What is recorded is what was sent."""

from __future__ import annotations

import pytest

from pytest_chatdify_db.postgres import wire

from .record import PROGRAMS, RECORDED, line, record
from .scripts import Step, read
from .stage import StagedSandbox


@pytest.mark.parametrize(
    "written",
    [
        "Q select 1",
        "P s:23,25 select $1,\n  $2",
        "B - s 1 'a b' ''",
        "raw B 000000000001ffffffff0000",
        "D s -",
        "C p c",
        "E - 5",
        "S",
        "H",
        "X",
        r"d 1\t\xe4\n",
        "c",
        "f no",
    ],
)
def test_a_message_as_a_line(written: str) -> None:
    """The line of a message is read as that message."""
    script = next(read(f"== title\nA: {written}"))

    assert line(script.steps[0].data) == written
    assert Step("A", *line(script.steps[0].data).replace("\n  ", "\n").partition(" ")[::2]).data == script.steps[0].data


def test_a_program_is_recorded(sandbox: StagedSandbox) -> None:
    """All it sends behind its log-in, each connection under a letter of its own."""
    (script,) = read(record(sandbox, "psycopg2", PROGRAMS["psycopg2"]))

    assert script.title == "psycopg2"
    assert {step.client for step in script.steps} == {"A"}
    sent = [step.data for step in script.steps]
    assert wire.query("INSERT INTO items (id, name) VALUES (10, 'a''b')") in sent
    assert sent[-1] == wire.TERMINATE


def test_every_program_is_in_the_corpus() -> None:
    """The file is of the programs that there are."""
    titles = [script.title for script in read(RECORDED.read_text(encoding="utf-8"))]

    assert titles == [f"recorded: {title}" for title in PROGRAMS]
