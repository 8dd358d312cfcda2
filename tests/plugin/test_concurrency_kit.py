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


def test_only_with_a_database_of_its_own(project: Project) -> None:
    """Elsewhere the error says why, and what to write."""
    project.write("test_it.py", "def test_it(chatdify_db_concurrency): ...")

    result = project.run()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*has no database of its own.", '*@pytest.mark.chatdify_db(isolation="database")*'])
