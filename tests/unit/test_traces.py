"""Files that were read are noticed, and so is their change; nothing else is."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from pytest_chatdify_db import traces


def test_reading_is_noticed(tmp_path: Path) -> None:
    """Files opened and directories listed, by whatever function, relative or not."""
    (tmp_path / "one.csv").touch()
    (tmp_path / "two").mkdir()
    (tmp_path / "three").mkdir()
    with traces.watched() as found:
        (tmp_path / "one.csv").read_text()
        os.listdir(tmp_path / "two")  # noqa: PTH208 - the function itself is meant
        list((tmp_path / "three").iterdir())

    assert {str(tmp_path / name) for name in ("one.csv", "two", "three")} <= found


def test_writing_is_no_input(tmp_path: Path) -> None:
    """A file that is only written does not count; one that is read and written does."""
    (tmp_path / "both").touch()
    with traces.watched() as found:
        (tmp_path / "written").write_text("x")
        with (tmp_path / "appended").open("a") as file:
            file.write("x")
        os.close(os.open(tmp_path / "low", os.O_WRONLY | os.O_CREAT))
        with (tmp_path / "both").open("r+") as file:
            file.write("x")

    assert {Path(path).name for path in found if path.startswith(str(tmp_path))} == {"both"}


def test_an_import_is_noticed_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when Python reads the compiled file instead."""
    (tmp_path / "planted_module.py").write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        sys.modules.pop("planted_module", None)
        with traces.watched() as found:
            __import__("planted_module")
    del sys.modules["planted_module"]

    assert str(tmp_path / "planted_module.py") in traces.manifest(found)


def test_only_the_block_and_its_thread_are_watched(tmp_path: Path) -> None:
    """What others do meanwhile, and what is done later, is not noticed; blocks may be nested."""
    for name in ("outer", "inner", "other", "later"):
        (tmp_path / name).touch()
    with traces.watched() as outer:
        (tmp_path / "outer").read_text()
        with traces.watched() as inner:
            (tmp_path / "inner").read_text()
        thread = threading.Thread(target=(tmp_path / "other").read_text)
        thread.start()
        thread.join()
    (tmp_path / "later").read_text()

    assert {Path(path).name for path in outer} & {"outer", "inner", "other", "later"} == {"outer"}
    assert {Path(path).name for path in inner} & {"outer", "inner", "other", "later"} == {"inner"}


@pytest.mark.parametrize("path", [os.__file__, pytest.__file__, "/dev/null", "/proc/self/stat", "<string>", "relative"])
def test_what_is_not_of_the_project(path: str) -> None:
    """The interpreter's files, installed packages, devices, and code that is in no file."""
    assert not traces.is_of_project(path)
    assert traces.manifest([path]) == {}


def test_a_change_is_noticed(tmp_path: Path) -> None:
    """Another text, another name in a directory, a file that is gone."""
    file, place = tmp_path / "file", tmp_path / "place"
    file.write_text("one")
    place.mkdir()
    made = traces.manifest([str(file), str(place)])
    results = [traces.holds(made)]
    file.write_text("two")
    results.append(traces.holds(made))
    file.write_text("one")
    (place / "new").touch()
    results.append(traces.holds(made))
    (place / "new").unlink()
    file.unlink()
    results.append(traces.holds(made))

    assert len(made) == 2
    assert results == [True, False, False, False]


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as gone."""
    (tmp_path / "file").touch()
    made = traces.manifest([str(tmp_path / "file")])

    def refuse(path: Path) -> bytes:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)

    assert not traces.holds(made)
