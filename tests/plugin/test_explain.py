"""The plans of the slowest statements in a test's report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project


@pytest.mark.parametrize("isolation", ["transaction", "database"])
def test_plans(project: Project, isolation: str) -> None:
    """Of queries with what they found, of writes without executing them; masked values are masked in plans too."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import pytest
        from sqlalchemy import bindparam, text
        from models import Item
        from store import add, names

        @pytest.mark.asyncio
        async def test_fails(session):
            add("one"), add("two")
            token = bindparam("token", "confidential")
            await session.execute(text("SELECT id, pg_sleep(0.05) FROM item WHERE name <> :token").bindparams(token))
            await session.execute(text("DELETE FROM item WHERE pg_sleep(0.02) IS NOT NULL"))
            await session.execute(text("SELECT nextval('item_id_seq'), pg_sleep(0.01)"))
            await session.commit()
            raise AssertionError

        def test_after():
            assert names() == []
        """,
    )

    result = project.run("--chatdify-db-explain=failed", f"--chatdify-db-isolation={isolation}", "--tb=short")

    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            "*- chatdify-db: EXPLAIN -*",
            "SELECT id, pg_sleep(0.05) FROM item WHERE name <> $1*  (* ms)",
            "    Seq Scan on item *(actual *",
            "DELETE FROM item WHERE pg_sleep(0.02) IS NOT NULL  (* ms)",
            "    Delete on item  (cost=*",
            "SELECT nextval('item_id_seq'), pg_sleep(0.01)  (* ms)",
            "    Result  (cost=*)",
        ]
    )
    result.stdout.no_fnmatch_line("    Delete on item *actual*")
    result.stdout.no_fnmatch_line("*confidential*")


def test_all_and_none(project: Project) -> None:
    """``all`` shows them for tests that pass; one without statements has none, one that cannot be had says why."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        from sqlalchemy import text
        from store import names

        def test_passes():
            names()

        def test_table_is_gone(sync_session):
            sync_session.execute(text("CREATE TABLE short_lived ()"))
            sync_session.execute(text("SELECT * FROM short_lived"))
            sync_session.execute(text("DROP TABLE short_lived"))

        def test_nothing(chatdify_db): ...
        """,
    )

    result = project.run("--chatdify-db-explain=all", "-rA")

    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["SELECT item.name FROM item  (* ms)", '    cannot be explained: relation "short_lived" does not exist']
    )
    assert result.stdout.str().count("chatdify-db: EXPLAIN") == 2
