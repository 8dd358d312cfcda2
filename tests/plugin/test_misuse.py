"""What users are told of fixtures that are asked for, or given something, that cannot work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project


def test_a_session_in_a_wider_fixture(project: Project) -> None:
    """pytest says which scopes do not fit; the section says what to do."""
    project.write_models()
    project.write(
        "test_it.py",
        """
        import models, pytest

        @pytest.fixture(scope="module")
        def item(sync_session): ...

        def test_it(item): ...
        """,
    )

    project.run().stdout.fnmatch_lines(
        [
            "ScopeMismatch: *",
            "chatdify-db: the fixture 'sync_session' cannot serve a module-scoped one.",
            "  - let the wider fixture open a session of its own: with get_sync_session() as session, *",
        ]
    )


@pytest.mark.parametrize(
    ("given", "cause"),
    [("'app'", "it was given str 'app', which*"), ("ship", "it was given the task test_it.ship, which*")],
)
def test_no_celery_application(project: Project, given: str, cause: str) -> None:
    """What is given instead is named; a task knows its application."""
    project.write(
        "test_it.py",
        f"""
        from celery import Celery

        app = Celery("shop")

        @app.task
        def ship(): ...

        def test_it(celery_eager):
            celery_eager({given})
        """,
    )

    output = project.run().stdout

    output.fnmatch_lines(
        ["E *chatdify-db: the fixture 'celery_eager' cannot run tasks.", f"E *Cause: {cause}", "E *To fix this:"]
    )
    assert "fixtures/celery.py" not in output.str()


def test_a_key_that_is_no_dependency(project: Project) -> None:
    """A name in quotation marks is no function."""
    project.write(
        "test_it.py",
        """
        from fastapi import FastAPI

        def test_it(override_dependencies):
            override_dependencies(FastAPI(), {"user": "me"})
        """,
    )

    project.run().stdout.fnmatch_lines(["E *chatdify-db: 'user' is not overridden.", "E *Cause: a dependency is *"])
