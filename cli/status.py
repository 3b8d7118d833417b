"""``bigunet status``: which results are complete, and how far the others are."""

from __future__ import annotations

import click

from .command import Command
from .options import MAIN, image_argument, json_option, verbose_option
from .report import echo

__all__ = ["status"]


@click.command(cls=Command, short_help="Show how far runs on an image are.")
@image_argument
@json_option(MAIN)
@verbose_option(MAIN)
def status(image: str, *, as_json: bool, verbose: bool) -> None:
    """Show which results of IMAGE are complete, how far unfinished runs are, and what failed.

    IMAGE is an OME-Zarr image, or what --output names.
    """
    from bigunet.status import image_status

    echo(image_status(image), as_json=as_json)
