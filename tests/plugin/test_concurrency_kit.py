"""The kit for several sessions: what it asserts when the project does not do what its test says, and where it works.

That it passes where it should is shown by the recipes of docs/concurrency.md, which are run as they stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project


def test_what_is_not_so_is_said(project: Project) -> None:
    """A call that does not wait, one that goes on waiting, another error, none, and too few notifications."""
    project.write(
        "test_it.py",
        """
        import pytest
        from sqlalchemy import select, func, text
        from sqlalchemy.exc import DBAPIError, OperationalError

        pytestmark = pytest.mark.chatdify_db(isolation="database")
        lock = select(func.pg_advisory_xact_lock(1))

        def test_no_wait(chatdify_db_concurrency):
            with pytest.raises(AssertionError, match="the call did not wait: it returned 5"):
                with chatdify_db_concurrency.waits(lambda: 5): ...
            with pytest.raises(AssertionError, match="the call did not wait: it raised ZeroDivisionError"):
                with chatdify_db_concurrency.waits(lambda: 1 / 0): ...

        def test_waits_on(chatdify_db_concurrency):
            one, two = chatdify_db_concurrency.session(), chatdify_db_concurrency.session()
            one.execute(lock)
            with pytest.raises(AssertionError, match="the call still waits:\\nsession [0-9]+ waits for [0-9]+: SELECT"):
                with chatdify_db_concurrency.waits(lambda: two.execute(lock), timeout=1): ...

        def test_block_that_fails(chatdify_db_concurrency):
            one, two = chatdify_db_concurrency.session(), chatdify_db_concurrency.session()
            one.execute(lock)
            with pytest.raises(LookupError):
                with chatdify_db_concurrency.waits(lambda: two.execute(lock)):
                    raise LookupError

        def test_call_that_fails_after_its_wait(chatdify_db_concurrency):
            one, two = chatdify_db_concurrency.session(), chatdify_db_concurrency.session()
            one.execute(lock)
            def call():
                two.execute(lock)
                two.execute(text("SELECT 1 / 0"))
            with chatdify_db_concurrency.fails_with("22012"):
                with chatdify_db_concurrency.waits(call):
                    one.rollback()

        def test_other_error(chatdify_db_concurrency):
            session = chatdify_db_concurrency.session()
            with pytest.raises(AssertionError, match="SQLSTATE 22012, not 40001: .*division by zero"):
                with chatdify_db_concurrency.serialization_failure():
                    session.execute(text("SELECT 1 / 0"))
            with pytest.raises(AssertionError, match="SQLSTATE None, not 40001"):
                with chatdify_db_concurrency.serialization_failure():
                    raise LookupError
            with pytest.raises(AssertionError, match="it did not fail with SQLSTATE 40001"):
                with chatdify_db_concurrency.serialization_failure(): ...

        def test_too_few(chatdify_db_concurrency):
            listener = chatdify_db_concurrency.listen("Odd name")
            with pytest.raises(AssertionError, match="1 notifications expected, 0 came"):
                listener.wait_for(1, timeout=0.05)

        def test_outcomes(chatdify_db_concurrency):
            one, two = chatdify_db_concurrency.together(lambda: 1, lambda: 1 / 0)
            assert (one.result(), one.error, two.value) == (1, None, None)
            with pytest.raises(ZeroDivisionError):
                two.result()
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=7)


def test_no_call_is_waited_for_without_end(project: Project) -> None:
    """Not one that waits outside of PostgreSQL, nor one that sleeps there, tries again, or waits for the test."""
    project.write(
        "test_it.py",
        """
        import threading
        import pytest
        from sqlalchemy import select, func, text
        from sqlalchemy.exc import OperationalError

        pytestmark = pytest.mark.chatdify_db(isolation="database")
        lock = select(func.pg_advisory_xact_lock(1))
        never = "the call waits for no lock, and has not ended in 0.1 s"

        @pytest.fixture(autouse=True)
        def impatient(monkeypatch):
            monkeypatch.setattr("pytest_chatdify_db.fixtures.concurrency._PATIENCE", 0.5)

        @pytest.fixture
        def held(chatdify_db_concurrency):
            session = chatdify_db_concurrency.session()
            session.execute(lock)
            return session

        def test_waits_elsewhere(chatdify_db_concurrency):
            with pytest.raises(AssertionError, match=never):
                with chatdify_db_concurrency.waits(threading.Event().wait, timeout=0.1): ...

        def test_sleeps(chatdify_db_concurrency):
            session = chatdify_db_concurrency.session()
            with pytest.raises(AssertionError, match=never):
                sleep = lambda: session.execute(text("SELECT pg_sleep(3600)"))
                with chatdify_db_concurrency.waits(sleep, timeout=0.1): ...

        def test_tries_again(chatdify_db_concurrency, held):
            session, is_over = chatdify_db_concurrency.session(), threading.Event()
            def call():
                while not is_over.is_set():
                    try:
                        session.execute(lock)
                    except OperationalError:
                        session.rollback()
            with pytest.raises(AssertionError, match="the call still waits"):
                with chatdify_db_concurrency.waits(call, timeout=0.5): ...
            is_over.set()
            held.rollback()

        def test_together(chatdify_db_concurrency, held):
            session = chatdify_db_concurrency.session()
            text = "1 of 2 calls have not ended in 0.2 s:\\nsession [0-9]+ waits for [0-9]+: SELECT"
            with pytest.raises(AssertionError, match=text):
                chatdify_db_concurrency.together(lambda: session.execute(lock), lambda: 1, timeout=0.2)

        def test_together_elsewhere(chatdify_db_concurrency):
            with pytest.raises(AssertionError, match="1 of 1 calls .*:\\nno session waits for a lock"):
                chatdify_db_concurrency.together(threading.Event().wait, timeout=0.1)

        def test_nothing_together(chatdify_db_concurrency):
            assert chatdify_db_concurrency.together() == []
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=6)


def test_a_session_that_waits_already_is_not_the_call_s(project: Project) -> None:
    """Inside of a call that waits, another one has to wait by itself."""
    project.write(
        "test_it.py",
        """
        import threading
        import pytest
        from sqlalchemy import select, func

        @pytest.mark.chatdify_db(isolation="database")
        def test_it(chatdify_db_concurrency):
            one, two = chatdify_db_concurrency.session(), chatdify_db_concurrency.session()
            lock = select(func.pg_advisory_xact_lock(1))
            one.execute(lock)
            with chatdify_db_concurrency.waits(lambda: two.execute(lock)):
                is_over = threading.Event()
                with pytest.raises(AssertionError, match="the call did not wait: it returned"):
                    def call():
                        return is_over.wait(0.2)
                    with chatdify_db_concurrency.waits(call):
                        is_over.set()
                one.rollback()
        """,
    )

    project.run().assert_outcomes(passed=1)


def test_only_with_a_database_of_its_own(project: Project) -> None:
    """Elsewhere the error says why, and what to write."""
    project.write("test_it.py", "def test_it(chatdify_db_concurrency): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*has no database of its own.", '*@pytest.mark.chatdify_db(isolation="database")*'])
