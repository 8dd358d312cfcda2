"""What the test run says over its two connections, in one order with what clients say. No I/O.

The rule: what clients have said before the end of a test came before it, and is served first. A test that has begun
comes before whatever clients are read to say from then on; so does the end of the test before it.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from pytest_chatdify_db.sandbox.dialogue import Said, Unpacker

#: Orders about what clients have done until now.
_LOOK_BACK: Final = frozenset({"pop", "merge", "set_aside", "wrote", "leave"})


class Orders:
    """Orders that were given, and not obeyed yet.

    Those over the control connection wake the sandbox. Notes do not: they are read with whatever comes next, so an
    order that was given later may be read earlier. Their numbers tell.
    """

    def __init__(self) -> None:
        self._control, self._notes = Unpacker(), Unpacker()
        self._given: list[Said] = []

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._given)

    def take(self, data: bytes) -> None:
        """Take bytes of the control connection."""
        self._given += self._control.take(data)

    def take_notes(self, data: bytes) -> None:
        """Take bytes of the other."""
        self._given += self._notes.take(data)

    def due(self, *, all_clients_are_read: bool = False) -> list[Said]:
        """Return the orders to be obeyed now, in the order in which they were given, and forget them.

        Args:
            all_clients_are_read: Whether all that has come from clients has been read. As long as it has not, orders
                that look back wait for it, unless the next test has begun: then what comes is the next test's.
        """
        given = sorted(self._given, key=itemgetter("number"))
        end = len(given)
        if given and not all_clients_are_read and given[-1]["do"] != "push":
            end = next((at for at, order in enumerate(given) if order["do"] in _LOOK_BACK), end)
        self._given = given[end:]
        return given[:end]
