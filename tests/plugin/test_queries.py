"""The fixtures that count statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project


def test_counting(project: Project) -> None:
    """Both engines' statements count, transaction control does not; too many are listed, one by one."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import pytest
        from sqlalchemy import text
        from models import Item
        from store import add

        @pytest.mark.asyncio
        async def test_right(session, sync_session, assert_num_queries, assert_max_num_queries):
            with assert_num_queries(3) as statements, assert_max_num_queries(5):
                await session.execute(text("SELECT 1"))
                sync_session.execute(text("SELECT 2"))
                with sync_session.begin_nested():
                    sync_session.add(Item(name="one"))
                sync_session.commit()
                sync_session.rollback()
            assert [statement.driver for statement in statements] == ["asyncpg", "psycopg2", "psycopg2"]
            with assert_num_queries(0):
                pass

        def test_too_many(sync_session, assert_num_queries):
            with assert_num_queries(1):
                sync_session.execute(text("SELECT 1"))
                sync_session.execute(text("SELECT\\n 2"))

        def test_more_than(sync_session, assert_max_num_queries):
            with assert_max_num_queries(0):
                sync_session.execute(text("SELECT 3"))

        def test_none(assert_num_queries):
            with assert_num_queries(1):
                pass

        def test_error_of_the_block(assert_num_queries):
            with pytest.raises(LookupError), assert_num_queries(1):
                raise LookupError
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(
        [
            "2 statements were executed in the block at test_it.py:21, exactly 1 expected:",
            "  1. [[]psycopg2[]] SELECT 1",
            "  2. [[]psycopg2[]] SELECT 2",
            "1 statement was executed in the block at test_it.py:26, at most 0 expected:",
            "  1. [[]psycopg2[]] SELECT 3",
            "0 statements were executed in the block at test_it.py:30, exactly 1 expected.",
        ]
    )
