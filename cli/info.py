"""``bigunet info``: what is known of an image or a model file, without reading a pixel."""

from __future__ import annotations

import click

from .command import Command
from .options import MAIN, json_option, verbose_option
from .report import echo

__all__ = ["info"]


@click.command(cls=Command, short_help="Describe an image or a model file.")
@click.argument("target", metavar="IMAGE|MODEL")
@json_option(MAIN)
@verbose_option(MAIN)
def info(target: str, *, as_json: bool, verbose: bool) -> None:
    """Describe an OME-Zarr image with its labels, or a model: a file, or a name that ships."""
    from .facts import describe

    echo(describe(target), as_json=as_json)
