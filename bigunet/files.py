"""New files: refused where they cannot be, written aside and renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bigunet.errors import BigunetError, OutputError, OutputExistsError, RunError

__all__ = ["check_new_file", "written_aside"]


def check_new_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written or may not be replaced.

    Raises
    ------
    OutputExistsError
        If it is there and `overwrite` is not given.
    OutputError
        If its folder is not there, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} is there already: give another name, or --overwrite")


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` when all went well.

    Raises
    ------
    OutputError
        If nothing can be written there.
    RunError
        If writing fails later, such as on a full disk; `path` is as it was before.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        aside.touch()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_reason(error)}") from error
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        if isinstance(error, BigunetError):
            raise
        raise RunError(f"cannot write {path}: {_reason(error)}; nothing is left of it") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return error.strerror or " ".join(str(error).split())
