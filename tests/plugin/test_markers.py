"""What users are told of markers that are wrong, or misspelt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import Project


def test_arguments_that_are_not_valid(project: Project) -> None:
    """A typo in the marker stops the run at collection and names every such test."""
    project.write(
        "test_it.py",
        """
        import pytest

        @pytest.mark.chatdify_db(isolaton="database")
        def test_keyword(): ...

        @pytest.mark.chatdify_db(isolation="snapshot")
        def test_value(): ...

        @pytest.mark.chatdify_db("database")
        def test_position(): ...

        @pytest.mark.chatdify_db(reset_sequences="yes")
        def test_flag(): ...
        """,
    )

    result = project.run()

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: chatdify-db: the marker 'chatdify_db' of test_it.py::test_keyword is not valid.",
            "Cause: got an unexpected keyword argument 'isolaton'*",
            "chatdify-db: the marker 'chatdify_db' of test_it.py::test_value is not valid.",
            "Cause: isolation is 'snapshot', not 'transaction' or 'database'",
            "chatdify-db: the marker 'chatdify_db' of test_it.py::test_position is not valid.",
            "Cause: takes 0 positional arguments but 1 was given",
            "Cause: reset_sequences is 'yes', not True or False",
        ]
    )


@pytest.mark.parametrize("name", ["chatdify", "chatdifydb", "chatdify_bd"])
def test_a_misspelt_marker(project: Project, name: str) -> None:
    """A marker of almost the right name stops the run, unless the project has registered it."""
    project.write("test_it.py", f"import pytest\n@pytest.mark.{name}\ndef test_it(): ...")

    result = project.run("-W", "default", plugins="")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: chatdify-db: the marker '{name}' of test_it.py::test_it is not known.",
            "Cause: nobody has registered it, *; did you mean 'chatdify_db'?",
        ]
    )

    project.write("pytest.ini", f"[pytest]\nmarkers =\n    {name}(x): mine\n    other")

    project.run(plugins="").assert_outcomes(passed=1)


@pytest.mark.parametrize(("name", "is_explained"), [("chatdify_bd", True), ("slow", False)])
def test_a_misspelt_marker_where_pytest_is_strict(project: Project, name: str, is_explained: bool) -> None:
    """pytest refuses it while it imports the module; the report says which marker was meant, if it was this one."""
    project.write("test_it.py", f"import pytest\n@pytest.mark.{name}\ndef test_it(): ...")

    result = project.run("--strict-markers", plugins="")

    assert result.ret == pytest.ExitCode.INTERRUPTED
    explained = [
        f"chatdify-db: the marker '{name}' of test_it.py is not known.",
        "Cause: nobody has registered it, *; did you mean 'chatdify_db'?",
    ]
    result.stdout.fnmatch_lines(
        [f"'{name}' not found in `markers` configuration option", *explained[: 2 * is_explained]]
    )
    assert is_explained == ("did you mean" in result.stdout.str())


def test_a_worker_of_xdist(project: Project) -> None:
    """A worker cannot stop the run: there the test itself fails, with the same text."""
    project.write("test_it.py", "import pytest\n@pytest.mark.chatdify_db(isolaton=1)\ndef test_it(): ...")

    result = project.run("-n1", plugins="xdist.plugin")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["chatdify-db: the marker 'chatdify_db' of test_it.py::test_it is not valid."])
