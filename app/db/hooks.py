"""Work that must wait for the commit: run after it, dropped with what is rolled back.

A task sent before the commit finds no row, or one that never will be there. ``on_commit`` keeps a call until the
outermost transaction of its session is committed. A call registered inside a savepoint goes when the savepoint is
rolled back. The data is safe when the calls run: an error in one of them, or the end of a task that is cancelled
meanwhile, reaches the caller of ``commit()`` after the others have run, and undoes nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from sqlalchemy.orm import SessionTransaction

__all__ = ["OnCommitCall", "apply_async_on_commit", "delay_on_commit", "on_commit"]

_P = ParamSpec("_P")
_STATE: Final = "app.db.hooks"
AnySession = AsyncSession | Session | async_scoped_session[AsyncSession] | scoped_session[Session]


class Task(Protocol):
    """What is asked of a Celery task."""

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Send the task."""


@dataclass(frozen=True, slots=True)
class OnCommitCall:
    """What waits for a commit: a function to call, or a task to send.

    Args:
        function: The function, or the Celery task.
        args: Its arguments.
        kwargs: Its keyword arguments.
        options: Options of ``apply_async`` for a task; None for a function.
    """

    function: Any
    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] | None = None

    def __call__(self) -> Any:
        """Send the task, or call the function and return what it returns: of a coroutine function, what to await."""
        if self.options is None:
            return self.function(*self.args, **self.kwargs)
        return self.function.apply_async(self.args, dict(self.kwargs), **self.options)


@dataclass(frozen=True, slots=True)
class Registered:
    """A call, how its kind of session makes it, and the transaction or savepoint that it depends on."""

    call: OnCommitCall
    run: Callable[[], object]
    transaction: SessionTransaction | None


@dataclass(slots=True)
class _State:
    """What one session has to run, and which of its open transactions have been committed."""

    calls: list[Registered] = field(default_factory=list)
    committed: list[SessionTransaction | None] = field(default_factory=list)


def on_commit(session: AnySession, function: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
    """Call *function* once the session's transaction is committed, and never if it is rolled back.

    Args:
        session: The session whose commit is waited for.
        function: What to call, in the order of registration. With an ``AsyncSession`` it may be a coroutine function,
            and is awaited; a plain function runs on the event loop's thread, so it must not block.
        *args: Its arguments.
        **kwargs: Its keyword arguments.

    Raises:
        TypeError: *function* is a coroutine function and *session* a synchronous session.
    """
    call = OnCommitCall(function, args, kwargs)
    if not inspect.iscoroutinefunction(function):
        _register(session, call, call)
    elif not _is_async(session):
        raise TypeError(f"on_commit cannot await {function.__qualname__} for a synchronous session; pass a function")
    else:
        _register(session, call, lambda: await_only(call()))


def delay_on_commit(session: AnySession, task: Task, *args: object, **kwargs: object) -> None:
    """Send a Celery task once the session's transaction is committed: ``task.delay(*args, **kwargs)``.

    Args:
        session: The session whose commit is waited for.
        task: The task.
        *args: Its arguments.
        **kwargs: Its keyword arguments.
    """
    apply_async_on_commit(session, task, args, kwargs)


def apply_async_on_commit(
    session: AnySession,
    task: Task,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    **options: object,
) -> None:
    """Send a Celery task once the session's transaction is committed: ``task.apply_async(args, kwargs, **options)``.

    With an ``AsyncSession`` the task is sent from a thread: a broker that does not answer holds up this request, not
    the event loop.

    Args:
        session: The session whose commit is waited for.
        task: The task.
        args: Its arguments.
        kwargs: Its keyword arguments.
        **options: Options of ``apply_async`` (``countdown``, ``queue``...).
    """
    send = OnCommitCall(task, tuple(args), dict(kwargs or {}), options)
    if not _is_async(session):
        _register(session, send, send)
        return
    # Here, and not in the thread that sends: it has no current application, which decides what a shared task is.
    bound = replace(send, function=_of_current_application(task))
    _register(session, send, lambda: await_only(asyncio.to_thread(bound)))


def run_all(calls: Sequence[Registered]) -> None:
    """Run what is due after a commit. Whoever wants it held back, as tests do, puts a function in place of this one.

    Args:
        calls: The calls, in the order of registration.

    Raises:
        Exception: What one of them raised, after all have run; an ``ExceptionGroup`` if several did.
        asyncio.CancelledError: The task was cancelled meanwhile; it wins over the errors.
    """
    errors: list[Exception] = []
    cancelled: asyncio.CancelledError | None = None
    for call in calls:
        try:
            call.run()
        except asyncio.CancelledError as error:
            # The data is stored: what belongs to it is done, then the task may end.
            cancelled = error
        except Exception as error:  # noqa: BLE001 - raised below, after the other calls
            errors.append(error)
    if cancelled is not None:
        raise cancelled
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("several calls registered with on_commit failed; the transaction is committed", errors)


def has_calls(session: Session) -> bool:
    """Return whether *session* has calls waiting for its commit."""
    state: _State | None = session.info.get(_STATE)
    return state is not None and bool(state.calls)


def drop_calls(session: Session) -> None:
    """Forget what waits for the commit of *session*.

    A session that is rolled back before its first statement has no transaction whose end could be noticed.
    """
    state: _State | None = session.info.get(_STATE)
    if state is not None:
        state.calls.clear()


def _of_current_application(task: Any) -> Any:
    """Return the task that *task* stands for in this thread, if it is one of Celery's proxies, as a shared task is."""
    resolve = getattr(type(task), "_get_current_object", None)
    return task if resolve is None else resolve(task)


def _sync_half(session: AnySession) -> Session:
    if isinstance(session, (async_scoped_session, scoped_session)):
        # It stands for the session of this task or thread; an event on it would be one on all sessions.
        session = session()
    return session.sync_session if isinstance(session, AsyncSession) else session


def _is_async(session: AnySession) -> bool:
    return isinstance(session, (AsyncSession, async_scoped_session))


def _register(session: AnySession, call: OnCommitCall, run: Callable[[], object]) -> None:
    half = _sync_half(session)
    state: _State | None = half.info.get(_STATE)
    if state is None:
        state = half.info[_STATE] = _State()
        event.listen(half, "after_commit", _note_commit)
        event.listen(half, "after_transaction_end", _settle)
    state.calls.append(Registered(call, run, _innermost(half)))


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


def _note_commit(session: Session) -> None:
    _state(session).committed.append(_innermost(session))


def _settle(session: Session, transaction: SessionTransaction) -> None:
    """Run, hand to the enclosing transaction, or drop the calls of a *transaction* that has ended."""
    state = _state(session)
    committed = transaction in state.committed
    if committed:
        state.committed.remove(transaction)
    if transaction.parent is None:
        calls, state.calls = state.calls, []
        if committed:
            run_all(calls)
    elif transaction.nested:
        state.calls = [
            call if call.transaction is not transaction else replace(call, transaction=transaction.parent)
            for call in state.calls
            if committed or call.transaction is not transaction
        ]


def _state(session: Session) -> _State:
    state: _State = session.info[_STATE]
    return state
