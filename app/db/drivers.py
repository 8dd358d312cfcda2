"""What each driver is called with: a URL in, the connect arguments of psycopg2 or asyncpg out.

Pure. One URL and one set of settings must mean the same to both drivers, which have different words for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.engine import URL

from app.db.parameters import ASYNCPG, LIBPQ, TLS, sslmode_of, startup_settings
from app.db.urls import PLACE

__all__ = ["DriverArguments", "DriverOptions", "asyncpg_arguments", "psycopg2_arguments"]


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


def psycopg2_arguments(url: URL, options: DriverOptions) -> DriverArguments:
    """Return what psycopg2 (libpq) is to be called with.

    Args:
        url: A URL from :func:`parse_url`.
        options: What the settings add.
    """
    place, query = _split(url)
    seconds = _connect_timeout(query, options)
    given = {name: value for name, value in query.items() if name in TLS | LIBPQ}
    arguments: dict[str, Any] = {
        "application_name": query.get("application_name", options.application_name),
        # libpq counts whole seconds, and reads 1 as 2.
        "connect_timeout": seconds and max(2, round(seconds)),
        **given,
        **sslmode_of(query),
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
        "timeout": _connect_timeout(query, options) or None,
        "server_settings": settings,
    }
    if options.pgbouncer:
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": _unique_statement_name,
        }
    arguments |= {name: convert(query[name]) for name, convert in ASYNCPG.items() if name in query}
    dsn = {name: value for name, value in query.items() if name in TLS} | sslmode_of(query)
    if dsn:
        # asyncpg reads these in libpq's way from a DSN, and in no other form; the place is given beside it.
        arguments["dsn"] = "postgresql://?" + urlencode(dsn)
    return DriverArguments(place.set(drivername="postgresql+asyncpg"), arguments)


def _split(url: URL) -> tuple[URL, dict[str, str]]:
    """Return the URL with nothing but the place, and its parameters."""
    parameters = {
        name: value if isinstance(value, str) else value[0] for name, value in url.query.items() if name not in PLACE
    }
    return url.difference_update_query(parameters), parameters


def _connect_timeout(query: Mapping[str, str], options: DriverOptions) -> float:
    """Return the seconds to wait for a connection; 0 for ever, as in libpq."""
    return float(query.get("connect_timeout", options.connect_timeout))


def _unique_statement_name() -> str:
    return f"__asyncpg_{uuid.uuid4()}__"
