"""The plugin's options: their names, defaults and valid values, resolved once, each with the place it came from.

The command line beats the environment, the environment beats the ini file, and the ini file beats the default. A value
that was given and is empty (``CHATDIFY_DB_SERVER=``) counts as not given, except on the command line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, cast

from pytest_chatdify_db.mistakes.options import OptionError

Isolation = Literal["transaction", "database"]
Severity = Literal["off", "warn", "error"]
Shown = Literal["failed", "off", "all"]
Source = Literal["command line", "environment", "ini", "default"]

_SECRETS = ("password", "passwd", "secret", "token", "api_key", "authorization")
_PREFIX = re.compile(r"chatdify[-_]?db[-_]?", re.IGNORECASE)
_SIMILAR = 0.8
_URL_SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Setting:
    """One option, under its three names.

    Args:
        name: The short name, ``server``.
        default: The value when nobody gives one, written as on the command line; empty for none.
        help: One line for ``--help``.
        choices: The valid values; empty if any text is.
        metavar: What stands for the value in ``--help``.
        is_list: Whether it takes several values: separated by commas or white space, or the flag given again.
    """

    name: str
    default: str
    help: str
    choices: tuple[str, ...] = ()
    metavar: str = "VALUE"
    is_list: bool = False

    @property
    def flag(self) -> str:
        """The command line option, ``--chatdify-db-server``."""
        return f"--chatdify-db-{self.name.replace('_', '-')}"

    @property
    def flags(self) -> tuple[str, ...]:
        """Every spelling of the command line option: ``_`` is as good as ``-`` in a name of two words."""
        return tuple(dict.fromkeys([self.flag, f"--chatdify-db-{self.name}"]))

    @property
    def variable(self) -> str:
        """The environment variable, ``CHATDIFY_DB_SERVER``."""
        return f"CHATDIFY_DB_{self.name.upper()}"

    @property
    def ini(self) -> str:
        """The name in the ini file and in argparse's namespace, ``chatdify_db_server``."""
        return f"chatdify_db_{self.name}"


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "server",
        "auto",
        "PostgreSQL server to use: 'auto', 'container', 'embedded', or the URL of a server on which this plugin may "
        "create and drop databases of its own",
        metavar="CHOICE",
    ),
    Setting("image", "postgres:17-alpine", "Image of the container", metavar="IMAGE"),
    Setting(
        "metadata",
        "app.db:Base",
        "Declarative bases or MetaData objects whose tables are created, as 'module:attribute', one or more",
        metavar="MODULE:ATTRIBUTE",
        is_list=True,
    ),
    Setting("migrations", "", "Path of an alembic.ini that builds the schema instead of the metadata", metavar="PATH"),
    Setting(
        "isolation",
        "transaction",
        "Isolation of tests without a marker: one rolled-back transaction, or a database of their own",
        choices=("transaction", "database"),
        metavar="MODE",
    ),
    Setting(
        "reuse",
        "auto",
        "Whether prepared template databases may be kept for later runs; with 'always' a container goes on running too",
        choices=("auto", "always", "no"),
    ),
    Setting("keep", "never", "Whose database is kept after the run", choices=("never", "failed")),
    Setting(
        "dirty_reads",
        "warn",
        "What to do when one connection reads what another has not committed",
        choices=("off", "warn", "error"),
    ),
    Setting(
        "leaks",
        "warn",
        "What to do when a test leaves a transaction or connection open",
        choices=("off", "warn", "error"),
    ),
    Setting(
        "n_plus_one",
        "off",
        "What to do when a loop loads a relationship lazily, one statement for each object",
        choices=("off", "warn", "error"),
    ),
    Setting(
        "mask",
        ",".join(_SECRETS),
        "Parts of the names of parameters whose values no report shows, one or more",
        metavar="NAMES",
        is_list=True,
    ),
    Setting("sql", "failed", "Which tests' reports show the SQL they ran", choices=("failed", "off", "all")),
    Setting(
        "explain",
        "off",
        "Which tests' reports show the plans of their slowest statements",
        choices=("off", "failed", "all"),
    ),
)


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for.

    Args:
        server: ``auto``, ``container``, ``embedded``, or the URL of a server. A URL may hold a password.
        image: The container's image.
        metadata: Where the tables are declared, each ``module:attribute``.
        migrations: Path of an alembic.ini, or None to create the tables from *metadata*.
        isolation: The isolation of tests without the marker.
        reuse: Whether templates may outlive the run.
        keep: Whose database is kept after the run.
        dirty_reads: What a read of uncommitted rows does.
        leaks: What a transaction left open, or a connection out of its pool, does.
        n_plus_one: What lazy loads in a loop do.
        mask: Parts of the names of parameters whose values are not shown, in lower case.
        sql: Which reports show SQL.
        explain: Which reports show the plans of the slowest statements.
        sources: By short name, where each value came from.
    """

    server: str = "auto"
    image: str = "postgres:17-alpine"
    metadata: tuple[str, ...] = ("app.db:Base",)
    migrations: str | None = None
    isolation: Isolation = "transaction"
    reuse: Literal["auto", "always", "no"] = "auto"
    keep: Literal["never", "failed"] = "never"
    dirty_reads: Severity = "warn"
    leaks: Severity = "warn"
    n_plus_one: Severity = "off"
    mask: tuple[str, ...] = _SECRETS
    sql: Shown = "failed"
    explain: Shown = "off"
    sources: Mapping[str, Source] = field(default_factory=lambda: MappingProxyType({}))

    def source(self, name: str) -> Source:
        """Return where the value of the option *name* came from."""
        return self.sources.get(name, "default")

    @property
    def server_url(self) -> str | None:
        """The URL of the server that was named, or None if the plugin starts one."""
        return self.server if "://" in self.server else None


def resolve(cli: Mapping[str, str | None], environ: Mapping[str, str], ini: Mapping[str, str | None]) -> Options:
    """Choose each option's value by precedence and check it.

    Args:
        cli: Values of the command line by ini name; None where the option was not given.
        environ: The environment.
        ini: Values of the ini file by ini name; None or empty where the option is not set.

    Raises:
        OptionError: A value is not valid; the text names its source and the valid values.
    """
    chosen: dict[str, str] = {}
    sources: dict[str, Source] = {}
    for setting in SETTINGS:
        value, source = _choose(setting, cli, environ, ini)
        _check(setting, value, source)
        chosen[setting.name] = value
        sources[setting.name] = source
    return Options(
        server=chosen["server"],
        image=chosen["image"],
        metadata=split_paths(chosen["metadata"]),
        migrations=chosen["migrations"] or None,
        isolation=cast("Isolation", chosen["isolation"]),
        reuse=cast('Literal["auto", "always", "no"]', chosen["reuse"]),
        keep=cast('Literal["never", "failed"]', chosen["keep"]),
        dirty_reads=cast("Severity", chosen["dirty_reads"]),
        leaks=cast("Severity", chosen["leaks"]),
        n_plus_one=cast("Severity", chosen["n_plus_one"]),
        mask=split_paths(chosen["mask"].lower()),
        sql=cast("Shown", chosen["sql"]),
        explain=cast("Shown", chosen["explain"]),
        sources=MappingProxyType(sources),
    )


def is_near(name: str) -> bool:
    """Return whether *name*, in the ini file or the environment, begins as an option's does or is meant to."""
    return _PREFIX.match(name) is not None


def nearest(name: str) -> list[str]:
    """Return the names that *name*, misspelt for an option's in the ini file or the environment, may stand for."""
    short = _PREFIX.sub("", name).replace("-", "_").lower()
    near = difflib.get_close_matches(short, [setting.name for setting in SETTINGS], n=2, cutoff=_SIMILAR)
    return [setting.variable if name.isupper() else setting.ini for setting in SETTINGS if setting.name in near]


def split_paths(text: str) -> tuple[str, ...]:
    """Split ``"app.db:Base, billing.models:metadata"`` at commas and white space."""
    return tuple(text.replace(",", " ").split())


def _choose(
    setting: Setting, cli: Mapping[str, str | None], environ: Mapping[str, str], ini: Mapping[str, str | None]
) -> tuple[str, Source]:
    given = cli.get(setting.ini)
    if given is not None:
        return given.strip(), "command line"
    if variable := environ.get(setting.variable, "").strip():
        return variable, "environment"
    if line := (ini.get(setting.ini) or "").strip():
        return line, "ini"
    return setting.default, "default"


def _check(setting: Setting, value: str, source: Source) -> None:
    written = {"command line": setting.flag, "environment": setting.variable}.get(source, setting.ini)
    if setting.choices and value not in setting.choices:
        raise OptionError.invalid(written, source, value, [repr(choice) for choice in setting.choices])
    if setting.name == "server":
        _check_server(written, source, value)
    if setting.name == "metadata":
        _check_metadata(written, source, value)
    if not value and setting.default:
        raise OptionError.invalid(written, source, value, ["a value that is not empty"])


def _check_server(written: str, source: Source, value: str) -> None:
    valid = ["'auto'", "'container'", "'embedded'", "a URL such as postgresql://user:password@host:5432/postgres"]
    scheme, is_url, _ = value.partition("://")
    if is_url and scheme.partition("+")[0] not in _URL_SCHEMES:
        # The rest of the URL may hold a password: it is never repeated.
        raise OptionError.invalid(written, source, f"{scheme}://...", valid)
    if not is_url and value not in {"auto", "container", "embedded"}:
        raise OptionError.invalid(written, source, _without_password(value), valid)


def _check_metadata(written: str, source: Source, value: str) -> None:
    for path in split_paths(value):
        module, colon, attribute = path.partition(":")
        names = [*module.split("."), *attribute.split(".")]
        if not colon or not all(name.isidentifier() for name in names):
            raise OptionError.invalid(written, source, path, ["'module:attribute', such as 'app.db:Base'"])


def _without_password(value: str) -> str:
    return "..." + value[value.rindex("@") :] if "@" in value else value
