"""Tracebacks of SQLAlchemy's errors, without the libraries' frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, SADeprecationWarning, SAWarning, SQLAlchemyError

from app.db import TransactionAborted
from pytest_chatdify_db.tracebacks import shorten

_LIBRARY = compile("def call(function): function()", "/lib/site-packages/library.py", "exec")


class Config:
    """What is read of pytest's configuration.

    Args:
        options: The options that are given.
    """

    def __init__(self, **options: bool) -> None:
        self.options = options
        self.invocation_params = self
        self.dir = Path(__file__).parent

    def getoption(self, name: str, default: bool) -> bool:
        """Return the value of an option."""
        return self.options.get(name, default)


def raised(error: BaseException) -> pytest.ExceptionInfo[BaseException]:
    """Return *error* as it is when a library that the project calls has called the project, which raises it."""
    names: dict[str, Any] = {}
    exec(_LIBRARY, names)

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as info:
        names["call"](fail)
    return info


def files(error: BaseException) -> list[str]:
    """Return the names of the files in the traceback of *error*."""
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append(Path(trace.tb_frame.f_code.co_filename).name)
        trace = trace.tb_next
    return found


@pytest.mark.parametrize(
    ("error", "options", "is_cut"),
    [
        (SQLAlchemyError(), {}, True),
        (TransactionAborted(), {}, True),
        (SAWarning(), {}, True),
        (SADeprecationWarning(), {}, True),
        (SQLAlchemyError(), {"fulltrace": True}, False),
        (SQLAlchemyError(), {"usepdb": True}, False),
        (LookupError(), {}, False),
    ],
)
def test_which(error: BaseException, options: dict[str, bool], is_cut: bool) -> None:
    """SQLAlchemy's errors and warnings and the layer's errors are cut, unless every frame is wanted."""
    info = raised(error)
    assert files(error) == ["test_tracebacks.py", "library.py", "test_tracebacks.py"]

    shorten(info, Config(**options))  # type: ignore[arg-type]  # a stand-in

    assert ("library.py" not in files(error)) is is_cut


def test_cause() -> None:
    """The driver's error is left out, since its text is SQLAlchemy's; an error of the project's has its own frames."""
    driver = LookupError("of the driver")
    middle = DBAPIError("SELECT", {}, driver)
    middle.__cause__ = raised(driver).value
    top = KeyError("of the project")
    top.__cause__ = raised(middle).value
    info = raised(top)

    shorten(info, Config())  # type: ignore[arg-type]  # a stand-in

    assert "library.py" in files(top)
    assert "library.py" not in files(middle)
    assert middle.__cause__ is None


def test_nothing_of_the_project() -> None:
    """An error that no line of the project's had a part in keeps all of its frames."""
    info = raised(SQLAlchemyError())
    error = info.value
    assert error.__traceback__ is not None
    library = error.__traceback__.tb_next
    assert library is not None
    library.tb_next = None

    error.__traceback__ = library

    shorten(pytest.ExceptionInfo.from_exception(error), Config())  # type: ignore[arg-type]  # a stand-in

    assert files(error) == ["library.py"]
