"""Every limit that docs/limits.md names is shown by a test, and this is the list of them.

A limit is an item of a list, a section of the page without a list, or a part of the page without sections.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import Final

import pytest

from tests import documents

PAGE: Final = documents.ROOT / "docs" / "limits.md"

_SANDBOX: Final = "tests/integration/sandbox"
_SESSIONS: Final = "tests/plugin/test_sessions.py"
_CORPUS: Final = f"{_SANDBOX}/corpus"

#: How each limit begins, and what shows it: a test, a script of the corpus, or a file of the page's own project.
SHOWN_BY: Final = {
    "Locks never conflict": ("docs/limits.md::tests/test_locks.py",),
    "One statement at a time": (f"{_SANDBOX}/test_limits.py::test_statements_run_one_after_the_other",),
    "Time stands still": (f"{_SANDBOX}/test_limits.py::test_time_stands_still",),
    "Sequences do not go back": (
        f"{_SANDBOX}/test_limits.py::test_sequences_do_not_go_back",
        f"{_SANDBOX}/test_limits.py::test_what_analyze_counts_is_not_undone",
        "docs/limits.md::tests/test_sequences.py",
        "tests/plugin/test_lifetimes.py::test_ids_of_a_wider_fixture_depend_on_the_tests_before",
    ),
    "Isolation levels": (
        "docs/limits.md::tests/test_levels.py",
        f"{_SANDBOX}/test_limits.py::test_the_level_of_a_transaction_that_reads_is_not_shown",
        "tests/unit/sandbox/test_control.py::test_a_function_that_would_set_the_modes_of_all",
    ),
    "Uncommitted rows can be seen": ("tests/plugin/test_reports.py::test_task_sent_before_the_commit",),
    "Writing in turns": (
        "docs/limits.md::tests/test_turns.py",
        f"{_CORPUS}/transactions.txt::what has changed no row may be rolled back below another's writes",
        f"{_SANDBOX}/test_limits.py::test_a_definition_is_a_write_though_it_changes_nothing",
    ),
    "Not inside a transaction": (f"{_SANDBOX}/test_limits.py::test_what_needs_to_be_outside_a_transaction_says_so",),
    "Deferred constraints of two writers": (
        f"{_SANDBOX}/test_constraints.py::test_a_table_that_both_write_to_is_checked_at_the_last_commit",
    ),
    "`SET` and `set_config()` in a function": (
        f"{_SANDBOX}/test_limits.py::test_a_setting_inside_a_function_leaks",
        f"{_SANDBOX}/test_limits.py::test_a_setting_whose_name_is_not_in_the_text_leaks",
        f"{_SANDBOX}/test_limits.py::test_a_setting_of_a_prepared_statement_leaks",
    ),
    "`NOTIFY` and `pg_notify()` in a trigger": (
        f"{_SANDBOX}/test_limits.py::test_a_notification_inside_a_function_is_not_heard",
        f"{_SANDBOX}/test_limits.py::test_a_notification_for_no_row_is_heard",
    ),
    "A cursor that a function returns": (
        f"{_SANDBOX}/test_limits.py::test_a_cursor_that_a_function_returns_stays_open",
    ),
    "`LISTEN` in a function": (f"{_SANDBOX}/test_limits.py::test_listen_in_a_function_makes_nobody_a_listener",),
    "`EXECUTE` and `DEALLOCATE` in": (f"{_SANDBOX}/test_limits.py::test_a_function_does_not_know_what_was_prepared",),
    "A deferrable constraint": (f"{_SANDBOX}/test_limits.py::test_a_deferrable_constraint_of_a_function",),
    "Temporary tables are in one name space": (
        f"{_CORPUS}/settings.txt::a temporary table in front of a permanent one is its client's",
        f"{_SANDBOX}/test_limits.py::test_a_temporary_table_of_a_function_is_everybodys",
        f"{_SANDBOX}/test_limits.py::test_what_a_search_path_makes_temporary_is_everybodys",
        f"{_SANDBOX}/test_limits.py::test_a_temporary_function_is_everybodys",
        f"{_SANDBOX}/test_limits.py::test_a_temporary_sequence_in_a_string_is_anybodys",
    ),
    "`SET CONSTRAINTS` belongs to its client": (
        f"{_SANDBOX}/test_constraints.py::test_an_immediate_check_waits_for_commit_while_another_has_rows_that_fail_it",
    ),
    "`ALTER ROLE": (f"{_SANDBOX}/test_limits.py::test_settings_of_a_role_are_for_new_sessions",),
    "A custom setting": (f"{_SANDBOX}/test_limits.py::test_a_custom_setting_that_another_client_has_used_is_empty",),
    "`lastval()` and `currval()`": (
        f"{_SANDBOX}/test_limits.py::test_lastval_speaks_of_whoever_drew_last",
        f"{_SANDBOX}/test_limits.py::test_the_transaction_has_one_number",
    ),
    "Descriptors of large objects": (
        f"{_SANDBOX}/test_limits.py::test_a_large_object_stays_open_when_its_transaction_ends",
    ),
    "Limits of time": (
        f"{_SANDBOX}/test_limits.py::test_a_client_may_be_idle_for_longer_than_its_limit",
        f"{_SANDBOX}/test_limits.py::test_a_function_does_not_find_a_limit_that_ends_a_session",
    ),
    "A cursor `WITH HOLD`": (
        f"{_SANDBOX}/test_limits.py::test_a_cursor_with_hold_keeps_its_tables_in_use",
        f"{_SANDBOX}/test_limits.py::test_rows_of_a_held_cursor_are_made_as_they_are_fetched",
    ),
    "No snapshot is handed on": (f"{_SANDBOX}/test_limits.py::test_a_snapshot_is_not_handed_on",),
    "Wrong data of a `COPY": (f"{_SANDBOX}/test_limits.py::test_wrong_data_of_a_copy_is_reported_at_its_end",),
    "`pg_advisory_unlock_all()`": (
        f"{_SANDBOX}/test_limits.py::test_unlock_all_releases_everybodys_advisory_locks",
        f"{_SANDBOX}/test_limits.py::test_an_unlock_may_release_anothers_advisory_lock",
    ),
    "An advisory lock": (f"{_SANDBOX}/test_limits.py::test_a_lock_of_a_wider_fixture_ends_with_that_of_a_test",),
    "A rollback of one client closes cursors": (
        f"{_SANDBOX}/test_clients.py::test_a_rollback_that_closes_another_clients_cursor_is_told_by_name",
    ),
    "Connections after changes of tables": (
        f"{_SANDBOX}/test_clients.py::test_asyncpg_does_not_go_on_with_definitions_that_are_undone",
    ),
    "Statistics and other sessions' views": (
        f"{_SANDBOX}/test_limits.py::test_all_clients_are_one_session_to_the_server",
        f"{_SANDBOX}/test_limits.py::test_the_server_knows_of_no_channel",
        f"{_SANDBOX}/test_limits.py::test_the_server_does_not_know_a_connections_process_id",
    ),
    "With a database of its own": (
        "docs/limits.md::tests/test_wider_fixtures.py",
        "tests/plugin/test_own_databases.py::test_what_a_fixture_changed_is_told",
        "tests/plugin/test_own_databases.py::test_what_belongs_to_the_server_stays",
        f"{_SANDBOX}/test_limits.py::test_what_sql_says_of_prepared_statements_holds_on_its_side",
        f"{_SANDBOX}/test_limits.py::test_what_is_set_in_a_database_of_its_own_is_forgotten",
    ),
    "The first five tests that fail": ("tests/plugin/test_keeping.py::test_bound",),
    "Of the sandbox rows and sequences": ("tests/plugin/test_keeping.py::test_bound",),
    "What went wrong after the test's body": (
        "tests/plugin/test_keeping.py::test_a_failure_after_the_rollback_keeps_nothing",
    ),
    "PostgreSQL 14 or newer": (
        "tests/unit/servers/test_binaries.py::test_the_wheel_comes_first_newest_first",
        "tests/integration/test_servers_embedded.py::test_no_programs_at_all",
    ),
    "asyncpg, psycopg2 and psycopg 3": (f"{_SANDBOX}/test_checklist.py::test_1_replication_is_refused",),
    "The sandbox speaks no TLS": (f"{_SANDBOX}/test_limits.py::test_no_tls",),
    "Messages that no driver sends": (
        f"{_CORPUS}/extended.txt::bytes behind Sync and Flush",
        f"{_CORPUS}/extended.txt::a portal whose Bind has failed, in its failed transaction",
        f"{_CORPUS}/extended.txt::a FETCH of no cursor, described in a failed transaction",
        f"{_CORPUS}/cursors.txt::a cursor that SQL declares in the pipeline in which its transaction fails",
    ),
    "`DECLARE` outside a transaction": (f"{_CORPUS}/cursors.txt::a cursor of nothing, outside a transaction",),
    "The notice that a name is too long": (
        f"{_CORPUS}/names.txt::names that are too long, in a text that also begins and ends a transaction",
    ),
    "Libraries are loaded for all": (f"{_CORPUS}/settings.txt::a library that is loaded for all",),
    "A transaction pooler": (f"{_SANDBOX}/test_pooler.py::test_a_pooler_in_front_of_the_sandbox",),
    "`session` works with pytest-asyncio": (f"{_SESSIONS}::test_anyio",),
    "A connection that outlives its test": (
        f"{_SANDBOX}/test_drivers_raw.py::test_a_transaction_that_outlives_its_test_is_lost",
    ),
}


def limits() -> list[str]:
    """Return what each limit of the page begins with."""
    text = re.sub(r"^```.*?^```$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        title, *sections = re.split(r"^### ", part, flags=re.MULTILINE)
        for section in sections or [title]:
            items = re.findall(r"^- (.*)", section, flags=re.MULTILINE)
            found += items or [section.partition("\n")[0]]
    return found


@cache
def _tests_of(path: str) -> frozenset[str]:
    """Return the names of what can be run in a file: tests, scripts of a corpus, files of a page's project."""
    file = documents.ROOT / path
    if file.suffix == ".md":
        return frozenset(documents.project(file))
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".txt":
        return frozenset(re.findall(r"^== (.*)", text, flags=re.MULTILINE))
    return frozenset(
        node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_every_limit_is_in_the_list() -> None:
    """The page names no limit that is not here, and this list none that the page does not name."""
    unknown = [limit for limit in limits() if sum(map(limit.startswith, SHOWN_BY)) != 1]
    gone = [words for words in SHOWN_BY if not any(limit.startswith(words) for limit in limits())]

    assert (unknown, gone) == ([], [])


@pytest.mark.parametrize("limit", SHOWN_BY)
def test_what_shows_a_limit_is_there(limit: str) -> None:
    """The tests that the list names exist; they are run with the others."""
    for shown_by in SHOWN_BY[limit]:
        path, _, name = shown_by.partition("::")
        assert name in _tests_of(path), shown_by
