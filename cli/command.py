"""What all commands share: grouped help, and one line with an exit code for each failure."""

from __future__ import annotations

import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from bigunet.errors import BigunetError

__all__ = [
    "Command",
    "GroupedOption",
    "describe_error",
    "exit_code",
    "option",
    "talk",
    "usage_in_one_line",
]

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED, TERMINATED = 130, 143  # what shells report for programs that a signal ended
RESUMABLE = 3


class _Terminated(KeyboardInterrupt):
    """SIGTERM: a time limit is reached, or the machine is wanted for something else."""


class GroupedOption(click.Option):
    """An option that help shows under a heading."""

    def __init__(self, *args: Any, heading: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.heading = heading


def option(heading: str, *names: str, **kwargs: Any) -> Callable[[F], F]:
    """Return the decorator of an option that help shows under `heading`."""
    return click.option(*names, cls=GroupedOption, heading=heading, **kwargs)


class Command(click.Command):
    """A command with grouped help whose failures are one line and an exit code.

    Parameters
    ----------
    after_interrupt : str
        What to do next, said when the user stops the command.
    resumable : bool
        Whether a command that was stopped can go on, so that SIGTERM ends it with exit code 3.
    """

    def __init__(
        self,
        *args: Any,
        after_interrupt: str = "Run the same command again.",
        resumable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.after_interrupt = after_interrupt
        self.resumable = resumable

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in groups, in the order of their first options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            # Arguments stand in the usage line and the text above.
            if record is not None and isinstance(parameter, click.Option):
                # --help comes last and belongs to what everybody needs.
                heading = getattr(parameter, "heading", None) or next(iter(groups), "Options")
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; turn what goes wrong into one line on stderr and an exit code."""
        verbose = bool(ctx.params.get("verbose"))
        try:
            with warnings.catch_warnings(), _stopped_by_sigterm():
                if not verbose:
                    warnings.simplefilter("ignore")
                return super().invoke(ctx)
        except _Terminated:
            talk(f"Stopped by SIGTERM. {self.after_interrupt}")
            ctx.exit(RESUMABLE if self.resumable else TERMINATED)
        except KeyboardInterrupt:
            talk(f"Stopped. {self.after_interrupt}")
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            talk(f"Error: {describe_error(error, verbose=verbose)}")
            ctx.exit(exit_code(error))


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM stop a command as Ctrl-C does, so that it leaves things in order."""

    def stop(*_: Any) -> None:
        # Once is enough: a second one is not to disturb the end.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # no main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _UsageLine(click.ClickException):
    exit_code = click.UsageError.exit_code


@contextmanager
def usage_in_one_line() -> Iterator[None]:
    """Turn click's four lines about a wrong option into one that names the help."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        line = " ".join(error.format_message().split())
        help_at = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        raise _UsageLine(f"{line}{help_at}") from error


def exit_code(error: Exception) -> int:
    """Return 2 for what was refused before anything was written, else 1."""
    return error.exit_code if isinstance(error, BigunetError) else 1


def describe_error(error: Exception, *, verbose: bool) -> str:
    """Return an error as one line; with `verbose`, show its traceback on stderr first."""
    if verbose:
        talk("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, BigunetError):
        return str(error)
    message = " ".join(str(error).split())
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return line if verbose else f"{line} (unexpected; run with -v for the traceback)"


def talk(line: str) -> None:
    """Say a line on stderr; stdout is for results only."""
    click.echo(line, err=True)
