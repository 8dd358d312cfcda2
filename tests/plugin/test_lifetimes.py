"""Whose rows live how long, seen from a project's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project


def test_rows_live_as_long_as_their_scope(project: Project) -> None:
    """No fixture and no marker is needed: each test starts with the rows of the live wider fixtures, and no others."""
    project.write_models()
    project.write(
        "test_scopes.py",
        """
        import pytest
        from store import add, names

        @pytest.fixture(scope="session")
        def of_session(): add("session")

        @pytest.fixture(scope="module")
        def of_module(of_session): add("module")

        @pytest.fixture(scope="class")
        def of_class(): add("class")

        @pytest.fixture
        def of_function(): add("function")

        def test_empty():
            assert names() == []
            add("test")
            assert names() == ["test"]

        def test_undone(of_function):
            assert names() == ["function"]

        class TestClass:
            def test_first(self, of_class, of_function):
                assert names() == ["class", "function"]
                add("test")

            def test_wider_after_narrower(self, of_class, of_module):
                assert names() == ["class", "module", "session"]

            def test_both_stay(self, of_class):
                assert names() == ["class", "module", "session"]

        def test_class_is_over():
            assert names() == ["module", "session"]
        """,
    )
    project.write(
        "test_then.py",
        """
        from store import names

        def test_module_is_over():
            assert names() == ["session"]
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=7)


def test_wider_fixture_asked_for_late(project: Project) -> None:
    """A wider fixture that a test asks for dynamically works before the test's rows, and is refused above them."""
    project.write_models()
    project.write(
        "test_late.py",
        """
        import pytest
        from store import add, names

        @pytest.fixture(scope="session")
        def seeded(): add("seed")

        @pytest.fixture(scope="module")
        def harmless(): return names()

        def test_refused(request):
            add("mine")
            request.getfixturevalue("seeded")

        def test_harmless(request):
            add("mine")
            assert request.getfixturevalue("harmless") == ["mine"]

        def test_before_rows(request):
            request.getfixturevalue("seeded")
            add("mine")
            assert names() == ["mine", "seed"]

        def test_stays():
            assert names() == ["seed"]
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the session-scoped fixture 'seeded' is set up too late to store rows.",
            "Cause: test_late.py::test_refused has written already. *",
            "To fix this, either:",
            "  - name it in the test's signature, *",
            "  - name it by @pytest.mark.usefixtures *",
            "  - make it autouse",
        ]
    )
    assert result.stdout.str().count("To fix this, either:") == 1


def test_transactions_that_have_only_read(project: Project) -> None:
    """They end with nobody but their owner: neither with a fixture's set-up, nor when a frame has to make room."""
    project.write_models()
    project.write(
        "test_reads.py",
        """
        import pytest
        from sqlalchemy import text
        from app.db import sync_engine as engine
        from store import add, names

        @pytest.fixture(scope="module")
        def wide():
            with engine.connect() as connection:
                connection.execute(text("SET LOCAL work_mem = '3MB'"))
                yield connection

        @pytest.fixture(scope="session")
        def silent(): return 5

        @pytest.fixture(scope="session")
        def seeded(): add("seed")

        def work_mem(connection): return connection.scalar(text("SHOW work_mem"))

        @pytest.mark.parametrize("turn", [1, 2, 3])
        def test_of_a_wider_fixture(wide, turn):
            assert work_mem(wide) == "3MB"
            add("mine")
            assert names() == ["mine"]
            assert wide.scalar(text("SELECT count(*) FROM item")) == 1

        @pytest.mark.parametrize("late", ["silent", "seeded"])
        def test_of_this_test(request, late):
            with engine.connect() as connection:
                connection.execute(text("SET LOCAL work_mem = '4MB'"))
                request.getfixturevalue(late)
                assert work_mem(connection) == "4MB"
                connection.execute(text("INSERT INTO item (name) VALUES ('mine')"))
                connection.commit()
            assert "mine" in names()

        def test_rows_are_gone():
            assert names() == ["seed"]

        @pytest.fixture(scope="session")
        def another(): return names()

        def test_that_leaves_one(request):
            connection = engine.connect()
            connection.execute(text("SELECT 1"))
            request.getfixturevalue("another")
            request.config.left = connection

        def test_after_it(request):
            with pytest.raises(Exception, match="this transaction was undone"):
                request.config.left.execute(text("SELECT 1"))
            request.config.left.close()
        """,
    )

    result = project.run("-p", "no:randomly", "-W", "default")

    result.assert_outcomes(passed=8, warnings=1)
    result.stdout.fnmatch_lines(["*test_reads.py::test_that_leaves_one has left 1 connection(s) in a transaction*"])


def test_what_tear_downs_write_is_undone(project: Project) -> None:
    """A wider fixture that writes while it is torn down leaves nothing for the tests after it."""
    project.write_models()
    project.write(
        "test_tear_down.py",
        """
        import pytest
        from store import add, names

        @pytest.fixture(scope="class")
        def cleaning():
            yield
            add("left")
            assert names() == ["left"]

        @pytest.mark.usefixtures("cleaning")
        class TestClass:
            def test_nothing(self): ...

        def test_undone():
            assert names() == []
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=2)


def test_failed_set_up_leaves_no_rows(project: Project) -> None:
    """The rows of a fixture whose set-up fails are undone at once."""
    project.write_models()
    project.write(
        "test_failing.py",
        """
        import pytest
        from store import add, names

        @pytest.fixture(scope="module")
        def failing():
            add("half")
            raise RuntimeError("no more")

        def test_error(failing): ...

        def test_clean():
            assert names() == []
        """,
    )

    result = project.run()

    result.assert_outcomes(errors=1, passed=1)


def test_parametrised_wider_fixture(project: Project) -> None:
    """Each parameter set of a wider fixture starts without the rows of the one before."""
    project.write_models()
    project.write(
        "test_parameters.py",
        """
        import pytest
        from store import add, names

        @pytest.fixture(scope="module", params=["a", "b"])
        def row(request):
            add(request.param)
            return request.param

        def test_alone(row):
            assert names() == [row]

        def test_still_alone(row):
            assert names() == [row]
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_own_database(project: Project) -> None:
    """A test with a database of its own has real sessions and commits; wider fixtures are refused within it."""
    project.write_models()
    project.write(
        "test_own.py",
        """
        import pytest
        from sqlalchemy import text
        from app.db import get_sync_session
        from store import add, names

        @pytest.fixture(scope="module")
        def of_module(): add("module")

        def test_shared(of_module):
            assert names() == ["module"]

        @pytest.mark.chatdify_db(isolation="database")
        def test_own(chatdify_db):
            assert chatdify_db.isolation == "database" and names() == ["module"]
            add("kept")
            with get_sync_session() as one, get_sync_session() as other:
                pids = {each.execute(text("SELECT pg_backend_pid()")).scalar() for each in (one, other)}
            assert len(pids) == 2

        @pytest.mark.chatdify_db(isolation="database")
        def test_own_again(request):
            assert names() == ["module"]

        def test_shared_again():
            assert names() == ["module"]

        @pytest.fixture(scope="class")
        def of_class(): ...

        @pytest.mark.chatdify_db(isolation="database")
        def test_refused(request):
            request.getfixturevalue("of_class")
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        [
            "chatdify-db: the class-scoped fixture 'of_class' is set up too late to store rows.",
            'Cause: test_own.py::test_refused has a database of its own (isolation="database"), *',
        ]
    )


def test_sequences_are_set_back(project: Project) -> None:
    """``reset_sequences`` continues after the largest stored value; without it a sequence goes on where it was."""
    project.write_models()
    project.write(
        "test_sequences.py",
        """
        import pytest
        from app.db import get_sync_session
        from models import Item
        from store import add

        def first_id():
            with get_sync_session() as session:
                item = Item(name="new")
                session.add(item)
                session.flush()
                return item.id

        def test_one():
            assert first_id() == 1

        def test_goes_on():
            assert first_id() == 2

        @pytest.mark.chatdify_db(reset_sequences=True)
        def test_set_back():
            assert first_id() == 1

        @pytest.fixture(scope="class")
        def one(): add("one")

        @pytest.mark.usefixtures("one")
        class TestAfterRows:
            @pytest.mark.chatdify_db(reset_sequences=True)
            def test_after_largest(self):
                assert first_id() == 3
        """,
    )

    result = project.run()

    result.assert_outcomes(passed=4)


def test_ids_of_a_wider_fixture_depend_on_the_tests_before(project: Project) -> None:
    """Sequences are set back at the test's beginning: a row of a wider fixture, stored before, goes on counting."""
    project.write_models()
    project.write(
        "test_ids.py",
        """
        import pytest
        from app.db import get_sync_session
        from models import Item
        from store import add

        def id_of(name):
            with get_sync_session() as session:
                return session.query(Item.id).filter_by(name=name).scalar()

        @pytest.fixture(scope="class")
        def wide(): add("wide")

        @pytest.mark.parametrize("name", ["one", "two"])
        def test_before(name): add(name)

        @pytest.mark.chatdify_db(reset_sequences=True)
        class TestWide:
            def test_ids(self, wide):
                add("mine")
                assert (id_of("wide"), id_of("mine")) == (3, 4)

        @pytest.mark.chatdify_db(reset_sequences=True)
        def test_without():
            add("mine")
            assert id_of("mine") == 1
        """,
    )

    project.run().assert_outcomes(passed=4)


def test_doctests_have_turns(project: Project) -> None:
    """A doctest is a test like any other: its rows are undone."""
    project.write_models()
    project.write("pytest.ini", "[pytest]\naddopts = --doctest-glob=*.txt")
    for name in ("one.txt", "two.txt"):
        project.write(name, ">>> from store import add, names\n>>> names()\n[]\n>>> add('doc')\n>>> names()\n['doc']\n")
    project.write("conftest.py", "import store")

    result = project.run()

    result.assert_outcomes(passed=2)


def test_what_is_noticed(project: Project) -> None:
    """A dirty read of the application and a transaction left open are warned of at the test that has them."""
    project.write_models()
    project.write("pytest.ini", "[pytest]")
    project.write(
        "test_it.py",
        """
        import pytest
        from sqlalchemy import text
        from app.db import SyncSessionLocal, get_sync_session
        from models import Item
        from store import names

        left = []

        @pytest.fixture(scope="module", autouse=True)
        def reading_all_the_time():
            with SyncSessionLocal() as session:
                session.execute(text("SELECT 1"))
                yield

        def test_dirty_read():
            with get_sync_session() as session:
                session.add(Item(name="uncommitted"))
                session.flush()
                names()

        def test_leak():
            left.append(SyncSessionLocal())
            left[0].execute(text("SELECT 1"))

        def test_clean(): ...
        """,
    )

    result = project.run(plugins="")

    result.assert_outcomes(passed=3, warnings=2)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_dirty_read",
            "*DirtyReadWarning: chatdify-db: in test_it.py::test_dirty_read one connection *'item'*",
            "test_it.py::test_leak",
            "*LeakWarning: chatdify-db: test_it.py::test_leak has left 1 connection(s) in a transaction.",
        ]
    )
    project.run("--chatdify-db-dirty-reads=off", "--chatdify-db-leaks=error", plugins="").assert_outcomes(
        passed=3, errors=1
    )


def test_an_error_of_pytest_itself(project: Project) -> None:
    """A warning that pytest makes an error in a hook shows no line of the plugin, which it passes through."""
    project.write(
        "test_it.py",
        """
        import gc

        async def never(): ...

        def test_it(sync_session):
            never()
            gc.collect()
        """,
    )
    project.write_models()

    result = project.run("-W", "error")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*coroutine 'never' was never awaited*"])
    result.stdout.no_fnmatch_line("*pytest_chatdify_db*")
