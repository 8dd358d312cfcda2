"""How a client introduces itself: the start-up packet and the password (54.2.1).

The rule: one role, one password and one database are let in. Everybody else is refused as the server would do it, and
the connection ends.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import parameters
from pytest_chatdify_db.sandbox.client import Client, Stage

_CLEARTEXT: Final = wire.message(b"R", wire.pack_int32(3))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who may connect: one role, its password, one database."""

    user: str
    password: str = field(repr=False)
    database: str


class Refused(Exception):
    """A client is not let in, or not listened to any longer.

    Attributes:
        error: What it is told.
    """

    def __init__(self, sqlstate: str, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.error = wire.error(sqlstate, text, hint=hint, severity="FATAL")


def start(client: Client, packet: bytes, protocol: int, random: Callable[[int], bytes]) -> None:
    """Take the start-up packet of *client*, and ask for its password.

    Args:
        client: Whose it is.
        packet: The packet.
        protocol: The version it asks for.
        random: Returns as many random bytes as it is told.

    Raises:
        Refused: The packet asks for what there is not.
    """
    if protocol >> 16 != 3:
        asked = f"{protocol >> 16}.{protocol & 0xFFFF}"
        raise Refused("0A000", f"unsupported frontend protocol {asked}: server supports 3.0 to 3.2")
    given = wire.startup_parameters(packet)
    if not given.get("user"):
        raise Refused("28000", "no PostgreSQL user name specified in startup packet")
    client.user, client.database = given["user"], given.get("database", given["user"])
    _negotiate(client, protocol, [name for name in given if name.startswith("_pq_.")])
    if protocol >= wire.PROTOCOL_3_2:
        client.key = random(32)
    if given.get("replication", "off") not in {"off", "false", "0", "no"}:
        raise Refused("0A000", "replication connections are not available in a test")
    try:
        client.parameters.start(parameters.startup_settings(given))
    except parameters.BadOption as problem:
        raise Refused("42601", *problem.args) from None
    client.stage = Stage.IDENTIFYING
    client.send(_CLEARTEXT)


def _negotiate(client: Client, protocol: int, unknown: list[str]) -> None:
    """Tell *client* the newest version there is, and which of its options nobody knows."""
    if protocol > wire.PROTOCOL_3_2 or unknown:
        names = b"".join(name.encode() + b"\0" for name in unknown)
        newest = min(protocol, wire.PROTOCOL_3_2)
        client.send(wire.message(b"v", wire.pack_int32(newest) + wire.pack_int32(len(unknown)) + names))


def identify(client: Client, password: bytes, identity: Identity) -> None:
    """Check that *client* is who may connect.

    Raises:
        Refused: It is not.
    """
    if client.user != identity.user or not hmac.compare_digest(password, identity.password.encode()):
        raise Refused("28P01", f'password authentication failed for user "{client.user}"')
    if client.database != identity.database:
        hint = f'This test run has one database, "{identity.database}"; DATABASE_URL names it.'
        raise Refused("3D000", f'database "{client.database}" does not exist', hint)
