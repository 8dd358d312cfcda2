"""A database URL in one form, whatever notation it was written in: scheme, hosts, ports, sockets.

Pure. No message repeats any part of the URL but its scheme and the names of its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlencode

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.db.parameters import InvalidDatabaseURL, check_parameter

__all__ = ["PLACE", "parse_url", "url_from_parts"]

# Parameters that say where, not how: moved into the URL itself.
PLACE: Final = frozenset({"host", "port", "user", "password", "dbname"})
_HOST_LIST: Final = re.compile(r"^(?P<head>[^/]*//(?:[^/]*@)?)(?P<hosts>[^@/?]*,[^@/?]*)(?P<tail>[/?].*|)$", re.DOTALL)


def parse_url(text: str) -> URL:
    """Return the URL in one form: scheme ``postgresql``, hosts resolved from every notation, parameters checked.

    Accepted are ``postgresql://`` and ``postgres://``, with or without a driver; several hosts as libpq writes them
    (``@a:5432,b:5432/``) and as SQLAlchemy does (``?host=a:5432&host=b:5432``); a socket directory as ``?host=/dir``.

    Raises:
        InvalidDatabaseURL: It is no PostgreSQL URL, or a driver would refuse one of its parameters.
    """
    url = _read(text.strip())
    if "@" in (url.host or ""):
        raise InvalidDatabaseURL("a '@' in the user name or password must be written as %40")
    query = {name: _texts(value) for name, value in url.query.items()}
    url = _with_place(url, {name: query.pop(name) for name in PLACE & query.keys()})
    if not url.database:
        raise InvalidDatabaseURL("it names no database (postgresql://user:password@host:port/DATABASE)")
    for name, values in query.items():
        check_parameter(name, values)
    return url.update_query_dict({name: values[0] for name, values in query.items()})


def url_from_parts(*, user: str, password: str, host: str, port: int, database: str) -> URL:
    """Return the URL of a database whose parts are given one by one, so that any character needs no escaping."""
    if host.startswith("/"):
        return URL.create("postgresql", user, password, None, None, database, {"host": host, "port": str(port)})
    return URL.create("postgresql", user, password, host, port, database)


def _read(text: str) -> URL:
    scheme, found, _ = text.partition("://")
    if not found:
        raise InvalidDatabaseURL("it is no URL (postgresql://user:password@host:port/database)")
    if scheme.partition("+")[0] not in {"postgresql", "postgres"}:
        raise InvalidDatabaseURL(f"its scheme is {scheme!r}, not 'postgresql'")
    hosts = _HOST_LIST.match(text)
    if hosts:
        # A host that is missing becomes one that no check lets pass, not one that the parser drops.
        listed = urlencode([("host", unquote(host) or ",") for host in hosts["hosts"].split(",")], safe=":")
        joint = "&" if "?" in hosts["tail"] else "?"
        text = f"{hosts['head']}{hosts['tail']}{joint}{listed}"
    try:
        return make_url(text).set(drivername="postgresql")
    except (ArgumentError, ValueError):
        pass
    # Raised outside the handler: the parser's own message may repeat the password.
    raise InvalidDatabaseURL("it cannot be read: is the port a number, and is '/', ':' or '@' in a password escaped?")


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _with_place(url: URL, given: Mapping[str, tuple[str, ...]]) -> URL:
    """Move the place a query names into the URL itself."""
    hosts = [host for value in given.get("host", ()) for host in value.split(",")] or [unquote(url.host or "")]
    ports = [port for value in given.get("port", ()) for port in value.split(",")] or [_port_text(url)]
    if not all(hosts):
        raise InvalidDatabaseURL("it names no host (a socket directory is given as ?host=/directory)")
    # Made anew: URL.set() takes None for "leave as it is", and the host may move into the query.
    url = URL.create(
        "postgresql",
        username=given.get("user", (url.username,))[0],
        password=given.get("password", (_secret(url),))[0],
        database=given.get("dbname", (url.database,))[0],
        query=url.difference_update_query(given).query,
    )
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise InvalidDatabaseURL("it names another number of ports than hosts")
    places = [_host_and_port(host, port) for host, port in zip(hosts, ports, strict=True)]
    if len(places) > 1:
        return url.update_query_pairs([("host", f"{host}:{port}") for host, port in places])
    host, port = places[0]
    if host.startswith("/"):
        return url.update_query_dict({"host": host, "port": str(port)})
    return url.set(host=host, port=port)


def _secret(url: URL) -> str | None:
    return None if url.password is None else str(url.password)


def _port_text(url: URL) -> str:
    return "" if url.port is None else str(url.port)


def _host_and_port(host: str, port: str) -> tuple[str, int]:
    if host.count(":") == 1 and not host.startswith("/"):
        host, _, port = host.partition(":")
    try:
        number = int(port or 5432)
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise InvalidDatabaseURL("its port is not a number between 1 and 65535")
    return host, number
