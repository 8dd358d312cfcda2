"""The options as pytest knows them: on the command line and in the ini file. What they mean is in `settings`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import pytest

from pytest_chatdify_db import settings
from pytest_chatdify_db.mistakes.options import OptionError
from pytest_chatdify_db.postgres.address import Address, InvalidAddress

if TYPE_CHECKING:
    import argparse

_FLAGS: Final = "--chatdify-db-"


def add(parser: pytest.Parser) -> None:
    """Add every option to the command line and to the ini file."""
    group = parser.getgroup("chatdify-db", "PostgreSQL for tests (chatdify-db)")
    for setting in settings.SETTINGS:
        valid = f" ({', '.join(setting.choices)})" if setting.choices else ""
        default = f"; default: {setting.default}" if setting.default else ""
        text = f"{setting.help}{valid}{default}".replace("%", "%%")
        # Choices are checked by `settings.resolve`, which says the same for all three places.
        action = "append" if setting.is_list else "store"
        group.addoption(
            *setting.flags, dest=setting.ini, action=action, default=None, metavar=setting.metavar, help=text
        )
        parser.addini(setting.ini, help=f"{text} (or {setting.flag}, {setting.variable})", default=None)


def read(config: pytest.Config, namespace: argparse.Namespace | None = None) -> settings.Options:
    """Resolve the options of *config*.

    Args:
        config: The run's configuration.
        namespace: The parsed command line; default ``config.option``.

    Raises:
        OptionError: A value is not valid.
    """
    given = config.option if namespace is None else namespace
    options = settings.resolve(
        {setting.ini: _joined(getattr(given, setting.ini, None)) for setting in settings.SETTINGS},
        os.environ,
        {setting.ini: config.getini(setting.ini) for setting in settings.SETTINGS},
    )
    if options.server_url is not None:
        _check_url(options)
    return options


def check_names(config: pytest.Config) -> None:
    """Look for options that are misspelt, and so would count for nothing.

    Raises:
        OptionError: The ini file has one that begins as this plugin's do, or the environment one that is almost there.
    """
    known = [setting.ini for setting in settings.SETTINGS]
    # Public until pytest 9, which offers nothing instead.
    written = config._inicfg if hasattr(config, "_inicfg") else config.inicfg
    for name in written:
        if settings.is_near(name) and name not in known:
            raise OptionError.unknown(name, "ini file", settings.nearest(name), known)
    variables = [setting.variable for setting in settings.SETTINGS]
    for name in os.environ:
        # An application of this name has variables of its own.
        if settings.is_near(name) and name not in variables and (near := settings.nearest(name)):
            raise OptionError.unknown(name, "environment", near, variables)


def check_flags(arguments: Iterable[str]) -> None:
    """Look for options that are misspelt on the command line: pytest would not say what is meant.

    Raises:
        OptionError: There is one that is almost an option of this plugin.
    """
    spellings = [flag for setting in settings.SETTINGS for flag in setting.flags]
    for argument in arguments:
        flag = argument.partition("=")[0]
        # Others may have options that begin so, a conftest.py for instance.
        if flag.startswith(_FLAGS) and flag not in spellings and (near := settings.nearest(flag.removeprefix(_FLAGS))):
            meant = [setting.flag for setting in settings.SETTINGS if setting.ini in near]
            known = [setting.flag for setting in settings.SETTINGS]
            raise OptionError.unknown(flag, "command line", meant, known)


def login_role(config: pytest.Config) -> str:
    """Return the role that the sandbox's clients log in as: the server URL's, if there is a valid one."""
    try:
        url = read(config, config.known_args_namespace).server_url
    except OptionError:
        return "postgres"
    return Address.from_url(url).user if url else "postgres"


def _joined(given: str | list[str] | None) -> str | None:
    """Return what the command line says in one or several flags as the other two places say it in one text."""
    return ",".join(given) if isinstance(given, list) else given


def _check_url(options: settings.Options) -> None:
    try:
        Address.from_url(options.server_url or "")
    except InvalidAddress as error:
        setting = next(setting for setting in settings.SETTINGS if setting.name == "server")
        source = options.source("server")
        written = {"command line": setting.flag, "environment": setting.variable}.get(source, setting.ini)
        valid = ["a URL such as postgresql://user:password@host:5432/postgres"]
        raise OptionError.invalid(written, source, f"a URL of which {error}", valid) from None
