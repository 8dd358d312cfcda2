"""What ``create_all`` would send for the project's tables, with its listeners, as texts; no server is needed.

Equal texts have to mean equal databases. What a listener makes of a server's answers, or leaves to code that gives a
value, cannot be told so, and the texts are then such that fit this run alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from inspect import getclosurevars, isfunction
from itertools import groupby
from typing import Any, Final, NoReturn

from sqlalchemy import MetaData
from sqlalchemy.dialects.postgresql import psycopg2
from sqlalchemy.engine.mock import MockConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import DDL, ExecutableDDLElement
from sqlalchemy.sql.dml import ValuesBase

_PLAIN: Final = (str, bytes, int, float, bool)


def texts(metadatas: Iterable[MetaData], unknown: str) -> list[str]:
    """Return what ``create_all`` would send for each of *metadatas*.

    Args:
        metadatas: Whose tables are declared.
        unknown: What stands for a statement that cannot be told from another.

    Raises:
        SQLAlchemyError: The tables are not declared so that they could be created.
    """
    paper = _Paper(unknown)
    for metadata in metadatas:
        spent = [(pending, list(pending)) for pending in _pending(metadata)]
        try:
            metadata.create_all(paper, checkfirst=False)
        except SQLAlchemyError:
            raise
        except Exception:  # noqa: BLE001 - a listener of the project's asks the server something, and here is none
            return [unknown]
        finally:
            # What is to happen once has to happen when the tables are created.
            for pending, listeners in spent:
                pending[:] = listeners
    return [unknown] if paper.is_asked else list(_in_order(paper.sent))


def _pending(metadata: MetaData) -> Iterator[list[Any]]:
    """Yield the list of each listener that was registered with ``once=True``, from which a call takes it."""
    for target in (metadata, *metadata.tables.values()):
        for event in ("before_create", "after_create"):
            for listener in getattr(target.dispatch, event):
                pending = getclosurevars(listener).nonlocals.get("once") if isfunction(listener) else None
                if isinstance(pending, list):
                    yield pending


@dataclass(frozen=True, slots=True)
class _Sent:
    text: str
    #: Whether it creates what is declared, and so whether the order means nothing.
    is_declaration: bool


class _Paper(MockConnection):
    """A connection that takes down what it is given, and whether it was asked for anything."""

    def __init__(self, unknown: str) -> None:
        super().__init__(psycopg2.dialect(), self._note)  # type: ignore[no-untyped-call]  # SQLAlchemy's dialects have no annotations
        self.sent: list[_Sent] = []
        self.is_asked = False
        self._unknown = unknown

    def __getattr__(self, name: str) -> NoReturn:
        self.is_asked = True
        raise AttributeError(name)

    def _note(self, statement: Any, *parameters: object) -> _Answer:
        compiled = statement.compile(dialect=self.dialect)
        parts = [str(compiled), *map(repr, (compiled.params, *parameters)), *self._defaults(statement)]
        is_declaration = isinstance(statement, ExecutableDDLElement) and not isinstance(statement, DDL)
        self.sent.append(_Sent("\n".join(parts), is_declaration))
        return _Answer(self)

    def _defaults(self, statement: object) -> Iterator[str]:
        """Yield the values that SQLAlchemy adds to what *statement* stores."""
        if not isinstance(statement, ValuesBase):
            return
        for column in statement.table.columns:
            for default in (column.default, column.onupdate):
                if default is not None and not default.is_sequence:
                    value = getattr(default, "arg", None)
                    yield f"{column.name} {value!r}" if isinstance(value, _PLAIN) else self._unknown


class _Answer:
    """Stands for the result of a statement."""

    def __init__(self, paper: _Paper) -> None:
        self._paper = paper

    def __getattr__(self, name: str) -> NoReturn:
        self._paper.is_asked = True
        raise AttributeError(name)

    def __iter__(self) -> Iterator[object]:
        self._paper.is_asked = True
        return iter(())


def _in_order(sent: Iterable[_Sent]) -> Iterator[str]:
    """Sort what was declared, between what listeners sent.

    SQLAlchemy keeps indexes, and the tables of a circle of foreign keys, in sets: their order differs from process to
    process.
    """
    for is_declaration, group in groupby(sent, lambda each: each.is_declaration):
        found = [each.text for each in group]
        yield from sorted(found) if is_declaration else found
