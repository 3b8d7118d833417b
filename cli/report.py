"""What commands say: progress on stderr, results on stdout, failures of several images."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import click

from .command import describe_error, talk

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["Reporter", "Result", "Step", "echo", "for_each_image", "step_facts", "talk"]

SECONDS_BETWEEN_LINES = 10.0


class Result(Protocol):
    """What library calls return: lines for people, a dictionary for programs."""

    def lines(self) -> list[str]:
        """Return the result as lines."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values."""
        ...


class Step(Protocol):
    """One report of progress; `bigunet.pipeline.Progress` is one."""

    @property
    def stage(self) -> str:
        """What is being done."""
        ...

    @property
    def done(self) -> int:
        """Parts done so far."""
        ...

    @property
    def total(self) -> int:
        """Parts in all; 0 where there is only a message."""
        ...

    @property
    def pixels(self) -> int:
        """Output pixels of the stage done so far."""
        ...

    @property
    def seconds(self) -> float:
        """Time since the stage began."""
        ...

    @property
    def message(self) -> str | None:
        """A line to say."""
        ...


def echo(result: Result, *, as_json: bool) -> None:
    """Print a result on stdout, as lines or as one line of JSON."""
    click.echo(json.dumps(result.as_dict()) if as_json else "\n".join(result.lines()))


def for_each_image(
    images: Sequence[str], call: Callable[[str], Result], *, as_json: bool, verbose: bool
) -> None:
    """Call and print for each image; where there are several, list the failures at the end.

    Raises
    ------
    click.exceptions.Exit
        With code 1, where one of several images failed. The error of a single image
        passes as it is.
    """
    failures = {}
    for image in images:
        try:
            echo(call(image), as_json=as_json)
        except BrokenPipeError:
            raise
        except Exception as error:
            if len(images) == 1:
                raise
            failures[image] = describe_error(error, verbose=verbose)
            talk(f"Error: {image}: {failures[image]}")
            if as_json:
                click.echo(json.dumps({"image": image, "error": failures[image]}))
    if failures:
        talk(f"{len(failures)} of {len(images)} images failed:")
        for image, line in failures.items():
            talk(f"  {image}: {line}")
        raise click.exceptions.Exit(1)


@dataclass(frozen=True, kw_only=True)
class Count:
    """A step of work that has one stage."""

    stage: str
    done: int
    total: int
    pixels: int
    seconds: float
    message: str | None = None


def step_facts(step: Step) -> str:
    """Return what is known of share, speed and time left: ``25 %, 3.10 Mpx/s, 0:01:00 left``."""
    facts = [f"{100 * step.done // step.total} %"]
    if step.seconds > 0 and step.pixels > 0:
        facts.append(f"{step.pixels / step.seconds / 1e6:.2f} Mpx/s")
    if step.done == step.total:
        facts.append(f"took {_clock(step.seconds)}")
    elif step.done > 0:
        facts.append(f"{_clock(step.seconds * (step.total - step.done) / step.done)} left")
    return ", ".join(facts)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class Reporter:
    """Shows progress on stderr: bars in a terminal, now and then a line elsewhere.

    Parameters
    ----------
    quiet : bool
        Say nothing but warnings.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._stack = ExitStack()
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        self._stage: str | None = None
        self._said = 0.0  # seconds of the stage at its last line

    def __enter__(self) -> Reporter:
        if not self.quiet and sys.stderr.isatty():
            self._bars = self._stack.enter_context(_bars())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __call__(self, step: Step) -> None:
        """Show one report of the library."""
        if step.message:
            self.say(step.message)
        if step.total > 0 and not self.quiet:
            if step.stage != self._stage:
                self._begin(step)
            elif step.done == 0:
                self._said = 0.0  # the same once more, such as the next level of a pyramid
            self._show(step)

    def pixels(self, stage: str) -> Callable[[int, int], None]:
        """Return a callback of pixels done and in all, for work that has one stage."""
        return self._count(stage, 1)

    def parts(self, stage: str) -> Callable[[int, int], None]:
        """Return a callback of parts done and in all, of work that has no pixels."""
        return self._count(stage, 0)

    def _count(self, stage: str, pixels: int) -> Callable[[int, int], None]:
        begin = time.perf_counter()

        def report(done: int, total: int) -> None:
            seconds = time.perf_counter() - begin
            self(Count(stage=stage, done=done, total=total, pixels=pixels * done, seconds=seconds))

        return report

    def say(self, line: str) -> None:
        """Say a line on stderr; with `quiet`, warnings only."""
        if self.quiet and not line.lower().startswith("warning"):
            return
        if self._bars is None:
            talk(line)
        else:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _begin(self, step: Step) -> None:
        self._stage, self._said = step.stage, 0.0
        if self._bars is not None:
            self._task = self._bars.add_task(step.stage, total=step.total, facts="")

    def _show(self, step: Step) -> None:
        if self._bars is not None and self._task is not None:
            done, total = step.done, step.total
            self._bars.update(self._task, completed=done, total=total, facts=step_facts(step))
        elif self._deserves_line(step):
            self._said = step.seconds
            talk(f"{step.stage}: {step_facts(step)}")

    def _deserves_line(self, step: Step) -> bool:
        if step.done == step.total:
            # The end of the main work always; of the rest, where it took long.
            return step.pixels > 0 or self._said > 0
        return step.seconds - self._said >= SECONDS_BETWEEN_LINES


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}")
    return Progress(*columns, console=Console(stderr=True))
