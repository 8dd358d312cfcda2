"""Where a PostgreSQL server is and who asks: parsed from a URL, rendered as one, its password never shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit


class InvalidAddress(ValueError):
    """A URL names no PostgreSQL server; the text says why and never repeats a password."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server, a role on it and a database.

    Args:
        host: Name or IP of the machine, or the absolute path of the directory that holds the unix socket.
        port: TCP port, or the number in the socket's file name.
        user: The role that logs in.
        password: Its password; None where the server asks for none. Never part of ``repr``.
        database: The database.
        options: Further connection parameters of libpq (``sslmode``, ``sslrootcert``, ...), in order. Never part of
            ``repr``: ``sslpassword`` is one of them.
    """

    host: str
    port: int = 5432
    user: str = "postgres"
    password: str | None = field(default=None, repr=False)
    database: str = "postgres"
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Parse ``postgresql://user:password@host:port/database?option=value``.

        A driver in the scheme (``postgresql+asyncpg``) is allowed and dropped. A socket directory is given as
        ``?host=/directory``.

        Raises:
            InvalidAddress: The scheme, port or host is none of PostgreSQL's.
        """
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            raise InvalidAddress("the port is not a number between 1 and 65535") from None
        if parts.scheme.partition("+")[0] not in {"postgresql", "postgres"}:
            raise InvalidAddress(f"its scheme is {parts.scheme or 'missing'!r}, not 'postgresql'")
        if (parts.hostname or "").count("@") or "@" in parts.path:
            raise InvalidAddress("a '@' in a user name or password must be written as %40")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        host = query.pop("host", "") or unquote(parts.hostname or "")
        if not host:
            raise InvalidAddress("it names no host (a socket directory is given as ?host=/directory)")
        try:
            port = int(query.pop("port", "") or port or 5432)
        except ValueError:
            raise InvalidAddress("the port is not a number between 1 and 65535") from None
        user = unquote(parts.username) if parts.username else query.pop("user", "postgres")
        password = unquote(parts.password) if parts.password is not None else query.pop("password", None)
        return cls(
            host=host,
            port=port,
            user=user,
            password=password,
            database=unquote(parts.path.lstrip("/")) or query.pop("dbname", "") or user,
            options=tuple(query.items()),
        )

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the address that `dataclasses.asdict` and JSON made *fields* of."""
        return cls(**{**fields, "options": tuple((name, value) for name, value in fields["options"])})

    @property
    def is_socket(self) -> bool:
        """Whether the server is reached through a unix socket."""
        return self.host.startswith("/")

    def with_database(self, name: str) -> Self:
        """Return the same server and role with another database."""
        return replace(self, database=name)

    def url(self, scheme: str = "postgresql") -> str:
        """Return the URL, password included, as libpq, asyncpg and SQLAlchemy's ``make_url`` accept it."""
        return self._render(scheme, None if self.password is None else quote(self.password, safe=""))

    def __str__(self) -> str:
        """Return the URL with ``***`` for the password: the form for messages."""
        options = tuple((name, "***" if name == "sslpassword" else value) for name, value in self.options)
        return replace(self, options=options)._render("postgresql", None if self.password is None else "***")

    def _render(self, scheme: str, secret: str | None) -> str:
        """Return the URL with *secret*, quoted already, as the password."""
        password = "" if secret is None else f":{secret}"
        query = list(self.options)
        netloc = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        if self.is_socket:
            netloc = ""
            query = [("host", self.host), ("port", str(self.port)), *query]
        tail = "?" + urlencode(query, safe="/*", quote_via=quote) if query else ""
        return f"{scheme}://{quote(self.user, safe='')}{password}@{netloc}/{quote(self.database, safe='')}{tail}"
