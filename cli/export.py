"""``bigunet export``: a label as a file for other programs."""

from __future__ import annotations

from typing import Any

import click

from .command import Command, option
from .options import (
    MAIN,
    image_argument,
    json_option,
    labels_option,
    quiet_option,
    scheduler_option,
    verbose_option,
    workers_option,
)
from .report import Reporter, echo

__all__ = ["export"]


@click.command(cls=Command, short_help="Write a label as GeoJSON or OME-TIFF.")
@image_argument
@click.argument("out", metavar="OUT")
@labels_option
@option(MAIN, "--overwrite", is_flag=True, help="Replace OUT if it is there.")
@json_option(MAIN)
@verbose_option(MAIN)
@quiet_option(MAIN)
@workers_option
@scheduler_option
def export(
    image: str, *, out: str, as_json: bool, verbose: bool, quiet: bool, **settings: Any
) -> None:
    """Write a label of IMAGE to OUT; its ending says what.

    .geojson, .geojson.gz: outlines of all objects, exact along their pixels, in pixels of level 0,
    with classes and areas, as QuPath reads them. .ome.tif, .ome.tiff: the label itself with its
    pyramid.
    """
    from bigunet.exports.run import export_labels

    with Reporter(quiet=quiet) as report:
        result = export_labels(image, out=out, progress=report.pixels("export"), **settings)
    echo(result, as_json=as_json)
