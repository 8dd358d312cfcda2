"""The order of what the test run says over two connections, and which of it waits for what clients have said."""

from __future__ import annotations

from itertools import count

import pytest

from pytest_chatdify_db.sandbox.dialogue import packed
from pytest_chatdify_db.sandbox.orders import Orders


def given(*words: str) -> Orders:
    """Return orders that were given in this order and read the other way round; those with a ``.`` are notes."""
    orders, numbers = Orders(), count()
    said = [(word, packed({"do": word.strip("."), "number": next(numbers)})) for word in words]
    for word, data in reversed(said):
        (orders.take_notes if word.endswith(".") else orders.take)(data)
    return orders


@pytest.mark.parametrize(
    ("words", "now", "later"),
    [
        ([], [], []),
        (["push."], ["push"], []),
        (["pop"], [], ["pop"]),
        (["push.", "pop"], ["push"], ["pop"]),
        (["push.", "wrote"], ["push"], ["wrote"]),
        (["enter", "own", "leave", "waits"], ["enter", "own"], ["leave", "waits"]),
        (["pop", "push."], ["pop", "push"], []),
        (["push.", "pop", "push."], ["push", "pop", "push"], []),
        (["pop", "push.", "pop"], [], ["pop", "push", "pop"]),
    ],
)
def test_what_is_due(words: list[str], now: list[str], later: list[str]) -> None:
    """What looks back waits until clients were read, but for a test that has begun since; each is due once."""
    orders = given(*words)
    assert bool(orders) == bool(words)
    assert [order["do"] for order in orders.due()] == now
    assert bool(orders) == bool(later)
    assert [order["do"] for order in orders.due(all_clients_are_read=True)] == later
    assert not orders
