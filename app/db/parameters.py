"""The parameters of a database URL: which there are, which values they take, what they mean to each driver.

Pure: the standard library only. The two drivers share few names, and refuse the others' with an error from deep inside
a first connection. So a parameter is checked here, and passed on, translated, left out, or refused by its name. No
message repeats a value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Final

__all__ = [
    "ASYNCPG",
    "KNOWN_PARAMETERS",
    "LIBPQ",
    "TLS",
    "InvalidDatabaseURL",
    "check_parameter",
    "sslmode_of",
    "startup_settings",
]

# Parameters that encrypt and authenticate: known to both drivers, but asyncpg takes them in a DSN only.
TLS: Final = frozenset(
    {
        "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl", "sslnegotiation",
        "ssl_min_protocol_version", "ssl_max_protocol_version", "passfile", "krbsrvname", "gsslib",
        "target_session_attrs",
    }
)  # fmt: skip
# What libpq alone has: tuning of its sockets, its own ways to log in.
LIBPQ: Final = frozenset(
    {
        "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
        "channel_binding", "gssencmode", "client_encoding", "fallback_application_name", "load_balance_hosts",
    }
)  # fmt: skip
# What asyncpg and SQLAlchemy's dialect for it alone have; a URL carries text, they want numbers.
ASYNCPG: Final[Mapping[str, Callable[[str], float]]] = {
    "command_timeout": float,
    "max_cacheable_statement_size": int,
    "max_cached_statement_lifetime": int,
    "prepared_statement_cache_size": int,
    "statement_cache_size": int,
}
_TRANSLATED: Final = frozenset({"ssl", "connect_timeout", "application_name", "options"})
KNOWN_PARAMETERS: Final = TLS | LIBPQ | ASYNCPG.keys() | _TRANSLATED

_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_SSL_WORDS: Final = {"true": "require", "1": "require", "on": "require", "false": "disable", "0": "disable"}


class InvalidDatabaseURL(ValueError):
    """A database URL cannot be used; the text says why, and repeats neither its password nor its host."""


def check_parameter(name: str, values: tuple[str, ...]) -> None:
    """Refuse a parameter that one of the drivers would stumble over.

    Args:
        name: Its name in the URL's query.
        values: What it is given, once for each time it is there.

    Raises:
        InvalidDatabaseURL: Neither driver knows it, or its value is none that it takes.
    """
    if name not in KNOWN_PARAMETERS:
        near = difflib.get_close_matches(name, KNOWN_PARAMETERS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are: {', '.join(sorted(KNOWN_PARAMETERS))}"
        raise InvalidDatabaseURL(f"its parameter {name!r} is unknown to both drivers; {hint}")
    if len(values) > 1:
        raise InvalidDatabaseURL(f"its parameter {name!r} is given more than once")
    if name == "ssl":
        sslmode_of({"ssl": values[0]})
    elif name == "options":
        startup_settings(values[0])
    elif name in _CHOICES and values[0] not in _CHOICES[name]:
        raise InvalidDatabaseURL(f"its parameter {name!r} must be one of: {', '.join(_CHOICES[name])}")
    elif name in ASYNCPG or name == "connect_timeout":
        try:
            ASYNCPG.get(name, float)(values[0])
        except ValueError:
            raise InvalidDatabaseURL(f"its parameter {name!r} must be a number") from None


def sslmode_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return asyncpg's ``ssl`` as libpq's ``sslmode``, which wins where both are given."""
    if "ssl" not in query or "sslmode" in query:
        return {}
    mode = _SSL_WORDS.get(query["ssl"].lower(), query["ssl"])
    if mode not in _CHOICES["sslmode"]:
        raise InvalidDatabaseURL(f"its parameter 'ssl' must be true, false or one of: {', '.join(_CHOICES['sslmode'])}")
    return {"sslmode": mode}


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
