"""A new client on the shared session: it gets the parameters it asked for, and is told what all of them are now.

The rule: a parameter that the server has anyway is not kept for the client, whatever words it used for it. The server
is asked once for each set of parameters, unless it could come to refuse one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from pytest_chatdify_db.postgres import wire
from pytest_chatdify_db.sandbox import parameters
from pytest_chatdify_db.sandbox.backend import Exchange, Reply
from pytest_chatdify_db.sandbox.client import Client
from pytest_chatdify_db.sandbox.session import SharedSession, Welcome, Work
from pytest_chatdify_db.sandbox.transactions import Settings

#: Of how many sets of parameters the answer is kept: those of an application are few, unless each names its connection.
_REMEMBERED: Final = 100


def greet(session: SharedSession, client: Client) -> Work:
    """Give *client* its session; return whether it got what it asked for."""
    wanted = client.parameters.effective
    came_with = frozenset(wanted.items())
    welcome = session.welcomes.get(came_with)
    if welcome is None:
        welcome = yield from _ask(session, client, wanted)
        if welcome is None:
            return False
        if len(session.welcomes) < _REMEMBERED and not parameters.may_fail({}, wanted):
            session.welcomes[came_with] = welcome
    client.reported, client.defaults = dict(welcome.reported), dict(welcome.reported)
    client.parameters.start(welcome.startup)
    client.send(wire.AUTHENTICATION_OK)
    for name, value in client.reported.items():
        client.send(wire.parameter_status(name, value))
    client.send(wire.backend_key_data(client.number, client.key))
    client.ready()
    return True


def _ask(session: SharedSession, client: Client, wanted: Settings) -> Generator[Exchange, None, Welcome | None]:
    """Have the server take what the client asks for; where it refuses, the client is told."""
    reply = Reply()
    exchange = Exchange()
    guard = session.history.guard()
    controls = [exchange.ask(wire.query(session.history.take_sql() or ";"), Reply())]
    limits = parameters.LIMITS.intersection(wanted)
    acts = parameters.switch(session.history.settings, wanted) + (";" + parameters.lift(limits) if limits else "")
    exchange.ask(wire.query(acts or ";"), reply)  # in one query: a limit may end a session that is idle
    yield exchange
    session.must_succeed(controls)
    if reply.error is not None:
        session.history.return_to(guard)
        client.send(reply.error.replace(b"SERROR\0VERROR\0", b"SFATAL\0VFATAL\0"))
        return None
    welcome = Welcome(dict(session.backend.parameters), _unlike_the_server(session, wanted))
    session.history.settings = {name: value for name, value in welcome.startup.items() if name not in limits}
    return welcome


def _unlike_the_server(session: SharedSession, startup: Settings) -> Settings:
    """Return the start-up parameters without those that are the server's own, said in other words.

    asyncpg asks for ``client_encoding=utf-8`` and libpq for nothing: without this, each change from one driver to
    the other would change a parameter that never differs.
    """
    own = {name.lower(): value for name, value in session.own_parameters.items()}
    now = {name.lower(): value for name, value in session.backend.parameters.items()}
    return {name: value for name, value in startup.items() if name not in now or now[name] != own.get(name)}
