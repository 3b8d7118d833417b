"""A task: a call with the place where it works, tried again before it is given up."""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dask.delayed import Delayed, delayed

from bigunet.cluster.shared import resolved
from bigunet.errors import BigunetError

__all__ = ["Failure", "Steps", "Task", "attempt", "call", "cause_text", "failures_text", "task"]

PAUSES = (0.1, 0.4)
"""Seconds before a second and a third attempt, give or take a half."""
NAMED_CAUSES = 3
# A full or forbidden place is the same half a second later.
_PERMANENT = frozenset(
    {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EPERM, errno.EROFS}
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What is left of a task that raised."""

    where: str
    cause: str
    stops_run: bool = False
    """Whether all others would fail in the same way."""


@dataclass(frozen=True)
class Steps:
    """A function in three steps, of which only the second needs the device of a run.

    Each is called with the arguments of all, the later ones first with what the step before
    returned. Where some workers lack the device, these take the other steps.
    """

    read: Callable[..., Any]
    compute: Callable[..., Any]
    write: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Take all steps here and now."""
        return self.write(self.compute(self.read(*args), *args), *args)


@dataclass(frozen=True)
class Task:
    """A call whose result is the function's, or a `Failure`."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    """Some may be delayed, others stand for shared values."""
    where: str
    """The place in the image, for the user."""

    @property
    def is_lazy(self) -> bool:
        """Whether dask has to compute an argument first."""
        return any(isinstance(arg, Delayed) for arg in self.args)

    @property
    def steps(self) -> tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]] | None:
        """The three steps of its function, each for what the one before gave; None if it has none."""
        function, given = self.function, (self.where, self.args)
        if not isinstance(function, Steps):
            return None
        read = partial(attempt, function.read, self.where, *self.args)
        return (
            read,
            partial(_go_on, function.compute, *given),
            partial(_go_on, function.write, *given),
        )

    def __call__(self) -> Any:
        """Run it here and now, if it is not lazy."""
        return attempt(self.function, self.where, *self.args)

    def delayed(self, key: str | None = None) -> Delayed:
        """Return the same for dask, which computes arguments first."""
        call = partial(attempt, self.function, self.where)
        made: Delayed = delayed(call, pure=False, traverse=False)(*self.args, dask_key_name=key)
        return made


def task(function: Callable[..., Any], *args: Any, where: str) -> Task:
    """Return a call that gives the function's result or a `Failure`."""
    return Task(function, args, where)


def attempt(function: Callable[..., Any], where: str, *args: Any) -> Any:
    """Call a function, again where that may help; what it raises last becomes a `Failure`."""
    pauses = iter(PAUSES)
    while True:
        try:
            return call(function, *args)
        except Exception as error:
            pause = next(pauses, None)
            if pause is None or is_permanent(error):
                stops = isinstance(error, BigunetError) and error.stops_run
                return Failure(where=where, cause=cause_text(error), stops_run=stops)
        # Workers that met the same trouble do not come back all at once.
        time.sleep(pause * random.uniform(0.5, 1.5))


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function with the values that shared arguments stand for."""
    return function(*(resolved(arg) for arg in args))


def _go_on(function: Callable[..., Any], where: str, args: tuple[Any, ...], before: Any) -> Any:
    """Take a step with what the one before gave; what failed before stays as it is."""
    return before if isinstance(before, Failure) else attempt(function, where, before, *args)


def is_permanent(error: BaseException) -> bool:
    """Tell whether another attempt would end in the same way."""
    if isinstance(error, BigunetError) and error.permanent:
        return True
    return any(isinstance(one, OSError) and one.errno in _PERMANENT for one in _with_causes(error))


def failures_text(failures: Sequence[Failure]) -> str:
    """Say each cause once, with the first place where it struck; numbers make no new cause."""
    alike: dict[str, list[Failure]] = {}
    for failure in failures:
        alike.setdefault(re.sub(r"\d+", "0", failure.cause), []).append(failure)
    told = []
    for group in alike.values():
        first = min(group, key=lambda failure: failure.where)
        more = f" and {len(group) - 1} more" if group[1:] else ""
        told.append(f"{first.cause} ({first.where}{more})")
    others = [f"{len(told) - NAMED_CAUSES} other causes"] if len(told) > NAMED_CAUSES else []
    return "; ".join([*told[:NAMED_CAUSES], *others])


def cause_text(error: BaseException) -> str:
    """Say in one line what went wrong; own errors need no name of a type."""
    text = " ".join(str(error).split())
    if isinstance(error, BigunetError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
