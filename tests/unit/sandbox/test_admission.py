"""Whether a statement may run, where no conversation of a client comes to ask."""

from __future__ import annotations

from pytest_chatdify_db.sandbox import admission

from .table import Table


def test_what_cannot_be_told_may_run(table: Table) -> None:
    """The server will say what is wrong with it."""
    client = table.join()

    assert admission.objection(table.core.session, client, None) is None
