"""The command ``bigunet``: a group whose sub-commands are imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

import click

from bigunet import __version__

from .command import usage_in_one_line

__all__ = ["main"]

# In the order of a user's day. The module of a command has the command's name.
COMMANDS = (
    "segment",
    "status",
    "info",
    "preview",
    "verify",
    "measure",
    "export",
    "train",
    "evaluate",
    "tune",
    "sample",
)


class LazyGroup(click.Group):
    """A group that imports the module of a sub-command only to run or describe it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, the main one first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name, or None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the options before the command; say what is wrong with them in one line."""
        with usage_in_one_line():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; say what is wrong with its options in one line."""
        with usage_in_one_line():
            return super().invoke(ctx)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with `bigunet segment IMAGE --model MODEL --dry-run`.",
)
@click.version_option(__version__, "--version", prog_name="bigunet")
def main() -> None:
    """Segment images of any size with a U-Net, exactly as if they fitted in memory."""
