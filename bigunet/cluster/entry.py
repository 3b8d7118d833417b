"""Workers that join a run late and cannot take part: they get no work of it.

Nobody can tell a scheduler of Dask which workers a run may have when they are not known yet.
So a refused worker hands back what it is given, and that is sent again: to the others, for Dask
finds that one idle and would choose it once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bigunet.errors import InputError

__all__ = ["Refused", "admit", "entered", "refuse", "require_versions"]

HELD_SECONDS = 1
"""That a refused worker keeps a task: else, being idle, it would be given all that are waiting."""

_refused_by: set[str] = set()


class Refused(Exception):  # noqa: N818 - it is no error, only no result
    """Raised instead of a call, on a worker that takes no part in a run."""


def entered(run: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function for a run.

    Raises
    ------
    Refused
        This worker takes no part in it.
    """
    if run in _refused_by:
        time.sleep(HELD_SECONDS)
        raise Refused
    return function(*args)


def refuse(run: str) -> None:
    """Let this process do nothing for a run."""
    _refused_by.add(run)


def admit(run: str) -> None:
    """Take a refusal back."""
    _refused_by.discard(run)


def require_versions(versions: Mapping[str, str]) -> None:
    """Compare versions of packages with those of this process.

    Raises
    ------
    InputError
        One differs.
    """
    for package, wanted in versions.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            found = "none"
        if found != wanted:
            raise InputError(f"{package} {found} instead of {wanted}")
