"""``bigunet preview``: an image and its labels in one picture."""

from __future__ import annotations

from typing import Any

import click

from .command import Command, option
from .options import (
    MAIN,
    channels_option,
    image_argument,
    labels_option,
    region_option,
    verbose_option,
)

__all__ = ["preview"]


@click.command(cls=Command, short_help="Draw an image and a label into a PNG.")
@image_argument
@click.argument("out", metavar="OUT.png")
@labels_option
@channels_option
@region_option
@option(MAIN, "--overwrite", is_flag=True, help="Replace OUT.png if it is there.")
@verbose_option(MAIN)
def preview(image: str, *, out: str, labels: str, verbose: bool, **settings: Any) -> None:
    """Draw IMAGE and one of its labels into OUT.png, small enough to look at.

    A large image is shown whole, beside a window at full resolution; a --region, which is in
    pixels of the finest level of the label, is shown without and with the label.
    """
    from bigunet.images.overlay import write_preview

    click.echo(str(write_preview(image, labels, out, **settings)))
