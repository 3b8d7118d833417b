"""``bigunet measure``: a table with a row for each object."""

from __future__ import annotations

from typing import Any

import click

from .command import Command, option
from .options import (
    MAIN,
    OUTPUT,
    channels_option,
    image_argument,
    json_option,
    labels_option,
    quiet_option,
    scheduler_option,
    verbose_option,
    workers_option,
)
from .report import Reporter, echo

__all__ = ["measure"]


def parse_properties(text: str) -> tuple[str, ...]:
    """Return the names of a list with commas; an empty text is no property."""
    names = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(names):
        raise click.BadParameter(f"'{text}' is not a list of names such as perimeter,solidity")
    return tuple(names)


@click.command(cls=Command, short_help="Measure the objects of a label into a table.")
@image_argument
@labels_option
@option(
    MAIN,
    "--output",
    metavar="FILE",
    help="New table, .parquet or .csv.  [default: NAME.parquet]",
)
@option(
    MAIN,
    "--properties",
    type=parse_properties,
    metavar="LIST",
    help="Properties of skimage.measure.regionprops, such as perimeter,feret_diameter_max.  "
    "[default: perimeter, eccentricity, solidity, orientation, mean, min, max and std of "
    "intensities]",
)
@channels_option
@option(
    OUTPUT,
    "--units",
    type=click.Choice(("auto", "px", "um")),
    default="auto",
    show_default=True,
    help="Pixels only, or micrometres beside them.",
)
@option(OUTPUT, "--overwrite", is_flag=True, help="Replace FILE if it is there.")
@json_option(MAIN)
@verbose_option(MAIN)
@quiet_option(MAIN)
@workers_option
@scheduler_option
def measure(image: str, *, as_json: bool, verbose: bool, quiet: bool, **settings: Any) -> None:
    """Measure every object of a label of IMAGE: one row for each, in raster order.

    Each row has the id, the class, t and z, the area, the centroid and the box in pixels of
    level 0 and in micrometres, and the properties asked for.
    """
    from bigunet.measurement.run import measure_objects

    with Reporter(quiet=quiet) as report:
        result = measure_objects(image, progress=report.pixels("measure"), **settings)
    echo(result, as_json=as_json)
