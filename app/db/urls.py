"""DATABASE_URL in the words of each driver: one URL in, the connect arguments of psycopg2 or asyncpg out.

Pure. The two drivers share few parameter names, and refuse the others' with an error from deep inside a first
connection. So a URL is checked here, and each of its parameters is passed on, translated, or refused by name.
No message repeats any part of the URL but the names of its parameters.
"""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlencode

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

__all__ = [
    "KNOWN_PARAMETERS",
    "DriverArguments",
    "DriverOptions",
    "InvalidDatabaseURL",
    "asyncpg_arguments",
    "parse_url",
    "psycopg2_arguments",
    "startup_settings",
    "url_from_parts",
]

# Parameters that encrypt and authenticate: known to both drivers, but asyncpg takes them in a DSN only.
_TLS: Final = frozenset(
    {
        "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation",
        "ssl_min_protocol_version", "ssl_max_protocol_version", "passfile", "krbsrvname", "gsslib",
        "target_session_attrs",
    }
)  # fmt: skip
# What libpq alone has: tuning of its sockets, its own ways to log in.
_LIBPQ: Final = frozenset(
    {
        "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
        "channel_binding", "gssencmode", "client_encoding", "fallback_application_name", "load_balance_hosts",
    }
)  # fmt: skip
# What asyncpg and SQLAlchemy's dialect for it alone have; a URL carries text, they want numbers.
_ASYNCPG: Final[Mapping[str, Callable[[str], float]]] = {
    "command_timeout": float,
    "max_cacheable_statement_size": int,
    "max_cached_statement_lifetime": int,
    "prepared_statement_cache_size": int,
    "statement_cache_size": int,
}
_TRANSLATED: Final = frozenset({"ssl", "connect_timeout", "application_name", "options"})
KNOWN_PARAMETERS: Final = _TLS | _LIBPQ | _ASYNCPG.keys() | _TRANSLATED
# Parameters that say where, not how: moved into the URL itself.
_PLACE: Final = frozenset({"host", "port", "user", "password", "dbname"})

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_SSL_WORDS: Final = {"true": "require", "1": "require", "on": "require", "false": "disable", "0": "disable"}
_HOST_LIST: Final = re.compile(r"^(?P<head>[^/]*//(?:[^/]*@)?)(?P<hosts>[^@/?]*,[^@/?]*)(?P<tail>[/?].*|)$", re.DOTALL)


class InvalidDatabaseURL(ValueError):
    """A database URL cannot be used; the text says why, and repeats neither its password nor its host."""


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """What the settings add to a URL. Where both name the same thing, the URL wins.

    Args:
        connect_timeout: Seconds to wait for a new connection.
        statement_timeout_ms: Milliseconds after which the server cancels a statement; None never.
        application_name: Name shown in ``pg_stat_activity``.
        pgbouncer: Whether prepared statements must not outlive a transaction.
    """

    connect_timeout: float = 10.0
    statement_timeout_ms: int | None = None
    application_name: str = "chatdify"
    pgbouncer: bool = False


@dataclass(frozen=True, slots=True)
class DriverArguments:
    """What ``create_engine`` gets: where to connect, and how.

    Args:
        url: Driver, hosts, role and database. Its text hides the password.
        connect_args: Keyword arguments of the driver's ``connect``; never printed, a key may need a password too.
    """

    url: URL
    connect_args: dict[str, Any] = field(repr=False)


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
    url = _with_place(url, {name: query.pop(name) for name in _PLACE & query.keys()})
    if not url.database:
        raise InvalidDatabaseURL("it names no database (postgresql://user:password@host:port/DATABASE)")
    for name, values in query.items():
        _check_parameter(name, values)
    return url.update_query_dict({name: values[0] for name, values in query.items()})


def url_from_parts(*, user: str, password: str, host: str, port: int, database: str) -> URL:
    """Return the URL of a database whose parts are given one by one, so that any character needs no escaping."""
    if host.startswith("/"):
        return URL.create("postgresql", user, password, None, None, database, {"host": host, "port": str(port)})
    return URL.create("postgresql", user, password, host, port, database)


def psycopg2_arguments(url: URL, options: DriverOptions) -> DriverArguments:
    """Return what psycopg2 (libpq) is to be called with.

    Args:
        url: A URL from :func:`parse_url`.
        options: What the settings add.
    """
    place, query = _split(url)
    given = {name: value for name, value in query.items() if name in _TLS | _LIBPQ}
    arguments: dict[str, Any] = {
        "application_name": query.get("application_name", options.application_name),
        # libpq counts whole seconds, and reads 0 as "no limit" and 1 as 2.
        "connect_timeout": max(2, round(float(query.get("connect_timeout", options.connect_timeout)))),
        **given,
        **_sslmode(query),
    }
    startup = query.get("options", "")
    if options.statement_timeout_ms is not None and "statement_timeout" not in startup_settings(startup):
        startup = f"{startup} -c statement_timeout={options.statement_timeout_ms}".strip()
    if startup:
        arguments["options"] = startup
    return DriverArguments(place.set(drivername="postgresql+psycopg2"), arguments)


def asyncpg_arguments(url: URL, options: DriverOptions) -> DriverArguments:
    """Return what asyncpg is to be called with; what it has no word for (``keepalives``...) is left out.

    Args:
        url: A URL from :func:`parse_url`.
        options: What the settings add.
    """
    place, query = _split(url)
    settings = startup_settings(query.get("options", ""))
    if options.statement_timeout_ms is not None:
        settings.setdefault("statement_timeout", str(options.statement_timeout_ms))
    settings["application_name"] = query.get("application_name", options.application_name)
    arguments: dict[str, Any] = {
        "timeout": float(query.get("connect_timeout", options.connect_timeout)),
        "server_settings": settings,
    }
    if options.pgbouncer:
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": _unique_statement_name,
        }
    arguments |= {name: convert(query[name]) for name, convert in _ASYNCPG.items() if name in query}
    dsn = {name: value for name, value in query.items() if name in _TLS} | _sslmode(query)
    if dsn:
        # asyncpg reads these in libpq's way from a DSN, and in no other form; the place is given beside it.
        arguments["dsn"] = "postgresql://?" + urlencode(dsn)
    return DriverArguments(place.set(drivername="postgresql+asyncpg"), arguments)


def startup_settings(options: str) -> dict[str, str]:
    """Return the settings in libpq's ``options`` text: ``-c name=value``, ``-cname=value`` or ``--name=value``.

    Raises:
        InvalidDatabaseURL: A word in it is none of these.
    """
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|\S)+", options)]
    settings = {}
    position = iter(words)
    for word in position:
        text = next(position, "") if word == "-c" else word[2:] if word.startswith(("-c", "--")) else ""
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidDatabaseURL("its parameter 'options' must be '-c name=value', repeated as needed")
        settings[name.replace("-", "_")] = value
    return settings


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


def _check_parameter(name: str, values: tuple[str, ...]) -> None:
    if name not in KNOWN_PARAMETERS:
        near = difflib.get_close_matches(name, KNOWN_PARAMETERS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are: {', '.join(sorted(KNOWN_PARAMETERS))}"
        raise InvalidDatabaseURL(f"its parameter {name!r} is unknown to both drivers; {hint}")
    if len(values) > 1:
        raise InvalidDatabaseURL(f"its parameter {name!r} is given more than once")
    if name == "ssl":
        _sslmode({"ssl": values[0]})
    elif name == "options":
        startup_settings(values[0])
    elif name in _CHOICES and values[0] not in _CHOICES[name]:
        raise InvalidDatabaseURL(f"its parameter {name!r} must be one of: {', '.join(_CHOICES[name])}")
    elif name in _ASYNCPG or name == "connect_timeout":
        try:
            _ASYNCPG.get(name, float)(values[0])
        except ValueError:
            raise InvalidDatabaseURL(f"its parameter {name!r} must be a number") from None


def _split(url: URL) -> tuple[URL, dict[str, str]]:
    """Return the URL with nothing but the place, and its parameters."""
    parameters = {name: _texts(value)[0] for name, value in url.query.items() if name not in _PLACE}
    return url.difference_update_query(parameters), parameters


def _sslmode(query: Mapping[str, str]) -> dict[str, str]:
    """Return asyncpg's ``ssl`` as libpq's ``sslmode``, which wins where both are given."""
    if "ssl" not in query or "sslmode" in query:
        return {}
    mode = _SSL_WORDS.get(query["ssl"].lower(), query["ssl"])
    if mode not in _CHOICES["sslmode"]:
        raise InvalidDatabaseURL(f"its parameter 'ssl' must be true, false or one of: {', '.join(_CHOICES['sslmode'])}")
    return {"sslmode": mode}


def _unique_statement_name() -> str:
    return f"__asyncpg_{uuid.uuid4()}__"
