"""Values that all tasks of a run need: brought to each worker process once.

A task holds a small `Shared`; the value lies in the worker's process, where a plugin
of Dask puts it (see `bigunet.cluster.plugins`), also in workers that start later.
"""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass
from threading import Lock
from typing import Any

__all__ = ["Shared", "drop", "keep", "resolved"]


class _Kept:
    """A pickled value, unpickled when a task first asks for it."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled: bytes | None = pickled
        self._value: Any = None
        self._lock = Lock()

    def value(self) -> Any:
        with self._lock:
            if self._pickled is not None:
                self._value, self._pickled = pickle.loads(self._pickled), None
            return self._value


_kept: dict[str, _Kept] = {}
# Workers in threads of one process keep a value together.
_keepers: Counter[str] = Counter()


@dataclass(frozen=True)
class Shared:
    """Stands for a value of this process."""

    key: str

    @property
    def value(self) -> Any:
        """The value, the same object for all tasks of the process."""
        try:
            return _kept[self.key].value()
        except KeyError:
            raise RuntimeError("this worker was not given what all tasks share") from None


def resolved(argument: Any) -> Any:
    """Return the value of what may be a `Shared`."""
    return argument.value if isinstance(argument, Shared) else argument


def keep(key: str, pickled: bytes) -> None:
    """Hold a value for the tasks of this process."""
    _kept.setdefault(key, _Kept(pickled))
    _keepers[key] += 1


def drop(key: str) -> None:
    """Forget a value once for each time it was kept."""
    _keepers[key] -= 1
    if _keepers[key] <= 0:
        del _keepers[key]
        _kept.pop(key, None)
