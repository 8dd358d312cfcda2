"""The application's database settings, read from the environment when they are first needed.

Nothing is read at import. A value that cannot be used is reported with the name of its variable; a password is held in
a ``SecretStr`` and appears in no message, ``repr``, log or traceback.

Every field of :class:`Settings` is also a constant of this module, read through :func:`get_settings`::

    from app.config import DB_POOL_SIZE
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    DATABASE_URL: str
    DB_POOL_SIZE: int
    DB_MAX_OVERFLOW: int
    DB_POOL_TIMEOUT: float
    DB_POOL_RECYCLE: int
    DB_POOL_PRE_PING: bool

__all__ = ["ConfigurationError", "Settings", "get_settings"]

_PARTS: Final = ("POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB")
_URL_EXAMPLE: Final = "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
_EXAMPLES: Final = {"DATABASE_URL": _URL_EXAMPLE, "DATABASE_REPLICA_URL": _URL_EXAMPLE, "DB_HOST": "localhost"}
_SECRETS: Final = frozenset({"DATABASE_URL", "DATABASE_REPLICA_URL", "POSTGRES_PASSWORD"})


class ConfigurationError(RuntimeError):
    """The environment does not describe a usable database; the text names the variables and how to set them.

    It is no ``AttributeError`` and no ``ImportError``: ``hasattr`` and ``from ... import`` do not hide it.
    """


class Settings(BaseSettings):
    """How to reach the database and how to pool its connections.

    Each field is read from the environment variable of the same name. An empty variable counts as not set.

    Attributes:
        DATABASE_URL: ``postgresql://user:password@host:port/database``; wins over the parts below.
        DATABASE_REPLICA_URL: The same for a read-only replica; None sends read-only sessions to the primary.
        POSTGRES_USER: Role, when there is no ``DATABASE_URL``.
        POSTGRES_PASSWORD: Its password, any characters. There is no default.
        POSTGRES_DB: Database.
        DB_HOST: Host name, IP address or socket directory.
        DB_PORT: Port.
        DB_POOL_SIZE: Connections kept open by an engine (for the async engine: in each event loop).
        DB_MAX_OVERFLOW: Further connections opened under load and closed again.
        DB_POOL_TIMEOUT: Seconds to wait for a free connection.
        DB_POOL_RECYCLE: Seconds after which a connection is replaced; -1 never.
        DB_POOL_PRE_PING: Whether a connection is checked before it is handed out.
        DB_CONNECT_TIMEOUT: Seconds to wait for a new connection.
        DB_STATEMENT_TIMEOUT_MS: Milliseconds after which the server cancels a statement; None never.
        DB_APPLICATION_NAME: Name shown in ``pg_stat_activity``.
        DB_PGBOUNCER: Whether the URL leads to PgBouncer in transaction mode.
        DB_ECHO: Whether statements and their parameters are logged.
        DB_MODELS: Modules that define the tables, separated by commas; see :func:`app.db.import_models`.
    """

    model_config = SettingsConfigDict(
        case_sensitive=True, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    DATABASE_URL: SecretStr | None = None
    DATABASE_REPLICA_URL: SecretStr | None = None
    POSTGRES_USER: str | None = None
    POSTGRES_PASSWORD: SecretStr | None = None
    POSTGRES_DB: str | None = None
    DB_HOST: str = "localhost"
    DB_PORT: int = Field(default=5432, ge=1, le=65535)
    DB_POOL_SIZE: int = Field(default=10, ge=1)
    DB_MAX_OVERFLOW: int = Field(default=20, ge=0)
    DB_POOL_TIMEOUT: float = Field(default=30, gt=0, allow_inf_nan=False)
    DB_POOL_RECYCLE: int = Field(default=1800, ge=-1)
    DB_POOL_PRE_PING: bool = True
    DB_CONNECT_TIMEOUT: float = Field(default=10, gt=0, allow_inf_nan=False)
    DB_STATEMENT_TIMEOUT_MS: int | None = Field(default=None, ge=1)
    DB_APPLICATION_NAME: str = Field(default="chatdify", max_length=63)
    DB_PGBOUNCER: bool = False
    DB_ECHO: bool = False
    DB_MODELS: str = "app.models"

    @field_validator("DATABASE_URL", "DATABASE_REPLICA_URL")
    @classmethod
    def _check_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _parse(value)
        return value

    @model_validator(mode="after")
    def _check_pgbouncer(self) -> Settings:
        if self.DB_PGBOUNCER and self.DB_STATEMENT_TIMEOUT_MS is not None:
            raise ValueError(
                "DB_STATEMENT_TIMEOUT_MS cannot pass through PgBouncer in transaction mode (DB_PGBOUNCER is on); "
                "set it on the server: ALTER ROLE ... SET statement_timeout = ..."
            )
        return self

    @property
    def url(self) -> URL:
        """The primary database as a ``postgresql://`` URL; its text hides the password.

        Raises:
            ConfigurationError: Neither ``DATABASE_URL`` nor all of its parts are set.
        """
        if self.DATABASE_URL is not None:
            return _parse(self.DATABASE_URL)
        missing = [name for name in _PARTS if getattr(self, name) is None]
        if missing:
            raise ConfigurationError(_missing_text(missing))
        from app.db.urls import url_from_parts

        return url_from_parts(
            user=self.POSTGRES_USER or "",
            password=self.POSTGRES_PASSWORD.get_secret_value() if self.POSTGRES_PASSWORD else "",
            host=self.DB_HOST,
            port=self.DB_PORT,
            database=self.POSTGRES_DB or "",
        )

    @property
    def replica_url(self) -> URL | None:
        """The read-only replica, or None where there is none."""
        return None if self.DATABASE_REPLICA_URL is None else _parse(self.DATABASE_REPLICA_URL)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process: read once, then the same object.

    ``get_settings.cache_clear()`` makes the next call read the environment again. Engines that exist keep theirs.

    Raises:
        ConfigurationError: A variable has a value that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        text = _invalid_text(error)
    # Raised outside the handler: the ValidationError carries the rejected input, and would travel along as the context.
    raise ConfigurationError(text)


def __getattr__(name: str) -> Any:
    if name not in Settings.model_fields:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = get_settings()
    if name == "DATABASE_URL":
        return settings.url.render_as_string(hide_password=False)
    value = getattr(settings, name)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def __dir__() -> list[str]:
    return sorted({*globals(), *Settings.model_fields})


def _parse(secret: SecretStr) -> URL:
    # Imported late: SQLAlchemy is needed to parse a URL, not to read DB_POOL_SIZE.
    from app.db.urls import parse_url

    return parse_url(secret.get_secret_value())


def _invalid_text(error: ValidationError) -> str:
    problems = []
    names = []
    for item in error.errors(include_url=False, include_context=False):
        name = str(item["loc"][0]) if item["loc"] else ""
        text = item["msg"].removeprefix("Value error, ")
        if not name:
            problems.append(text)
            continue
        shown = "" if name in _SECRETS else f" (it is {item['input']!r})"
        names.append(name)
        problems.append(f"{name}: {text[:1].lower()}{text[1:]}{shown}")
    fixes = [f"export {name}={_EXAMPLES.get(name, _default(name))}" for name in names]
    return "\n".join(
        [
            "The database settings cannot be used.",
            "Cause: " + "\n       ".join(problems),
            "Tried: the environment variables of this process.",
            "To fix this, either:",
            *(f"  - give the variable an accepted value:  {fix}" for fix in fixes),
            f"  - remove it, where the default serves:  unset {' '.join(names) or 'DB_STATEMENT_TIMEOUT_MS'}",
        ]
    )


def _default(name: str) -> object:
    field = Settings.model_fields.get(name)
    return "1000" if field is None or field.default is None else field.default


def _missing_text(missing: list[str]) -> str:
    exports = " ".join(f"{name}=..." for name in missing)
    return "\n".join(
        [
            "The database is not configured.",
            f"Cause: DATABASE_URL is not set, and of its parts these are missing: {', '.join(missing)}.",
            "Tried: the environment variables DATABASE_URL, then POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB.",
            "To fix this, either:",
            f"  - name the database in one variable:  export DATABASE_URL={_URL_EXAMPLE}",
            f"  - set the missing parts:  export {exports}",
        ]
    )
