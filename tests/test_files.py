"""New files are whole, or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bigunet.errors import OutputError, OutputExistsError, RunError
from bigunet.files import check_new_file, written_aside


def test_a_file_takes_its_place_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with written_aside(path) as aside:
        aside.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), RunError("x")])
def test_what_goes_wrong_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def write() -> None:
        with written_aside(tmp_path / "a.txt") as aside:
            aside.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    line = r"cannot write .*a.txt: No space left on device; nothing is left of it"
    with pytest.raises(RunError, match=line), written_aside(tmp_path / "a.txt"):
        raise OSError(28, os.strerror(28))


def test_refusals(tmp_path: Path) -> None:
    there = tmp_path / "a.txt"
    there.touch()
    check_new_file(tmp_path / "new", overwrite=False)
    check_new_file(there, overwrite=True)
    with pytest.raises(OutputExistsError, match=r"a.txt is there already: .*--overwrite"):
        check_new_file(there, overwrite=False)
    with pytest.raises(OutputError, match="it is a folder"):
        check_new_file(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match=r"there is no folder .*nowhere"):
        check_new_file(tmp_path / "nowhere" / "a.txt", overwrite=False)
    with pytest.raises(OutputError, match="cannot write"), written_aside(there / "a.txt"):
        pass
