"""``bigunet segment``: an image and a model in, a label image out."""

from __future__ import annotations

from typing import Any

import click

from .command import Command, option
from .options import (
    INPUT,
    MAIN,
    OBJECTS,
    OUTPUT,
    RUNNING,
    channels_option,
    device_option,
    images_argument,
    json_option,
    model_option,
    parse_bytes,
    parse_intensity,
    parse_outputs,
    precision_option,
    quiet_option,
    region_option,
    runtime_option,
    scheduler_option,
    verbose_option,
    workers_option,
)
from .report import Reporter, Result, for_each_image

__all__ = ["segment"]

AUGMENTS = ("none", "d4")
SPLITS = ("distance",)
OVERLAPS = ("auto", "map_overlap", "direct")


@click.command(
    cls=Command,
    short_help="Segment images with a model.",
    after_interrupt="Nothing new is listed. Run the same command again: it goes on where it stopped.",
    resumable=True,
)
@images_argument
@model_option
@channels_option
@option(MAIN, "--output", metavar="NEW.zarr", help="Write there, not into labels/ of the image.")
@option(
    MAIN,
    "--overwrite",
    is_flag=True,
    help="Replace a label that bigunet wrote, or begin an unfinished one anew.",
)
@device_option
@option(
    MAIN,
    "--memory-limit",
    type=parse_bytes,
    metavar="SIZE",
    help="Memory allowed, such as 8GB.  [default: what the machine allows]",
)
@option(MAIN, "--dry-run", is_flag=True, help="Print the plan, with projected time; write nothing.")
@option(
    INPUT,
    "--level",
    type=click.IntRange(min=0),
    metavar="N",
    help="Level of the pyramid.  [default: what fits the model's pixel size, or 0]",
)
@option(
    INPUT,
    "--pixel-size",
    type=click.FloatRange(min=0, min_open=True),
    metavar="UM",
    help="Take the level nearest to this size, in micrometres per pixel.",
)
@option(
    INPUT,
    "--intensity",
    type=parse_intensity,
    metavar="LO,HI",
    multiple=True,
    help="Limits of intensity; repeat for each channel.  [default: measured, as the model says]",
)
@region_option
@option(
    INPUT,
    "--mask",
    metavar="auto|LABEL|none",
    default="none",
    show_default=True,
    help="Segment tissue only, which is found (auto), or what a label covers; the rest is background.",
)
@option(OUTPUT, "--name", help="Name of the label.  [default: the model's]")
@option(
    OUTPUT,
    "--save",
    type=parse_outputs,
    metavar="LIST",
    help="What to write, with commas: objects, classes, probabilities (these need --output).  "
    "[default: objects of a model that was trained on objects, else classes]",
)
@json_option(OUTPUT)
@option(
    OBJECTS,
    "--min-area",
    metavar="SIZE",
    help="Remove smaller objects: pixels of the level used, such as 20, or 20um2.",
)
@option(OBJECTS, "--max-area", metavar="SIZE", help="Remove larger objects.")
@option(OBJECTS, "--fill-holes", is_flag=True, help="Fill background that one object encloses.")
@option(
    OBJECTS,
    "--split",
    type=click.Choice(SPLITS),
    help="Split objects that grew together, by their distance map; needs --max-diameter.",
)
@option(
    OBJECTS,
    "--max-diameter",
    metavar="SIZE",
    help="Longest side of what is split: pixels, such as 40, or 20um.",
)
@precision_option
@runtime_option
@option(
    RUNNING,
    "--augment",
    type=click.Choice(AUGMENTS),
    default="none",
    show_default=True,
    help="d4: mean over the 8 flips and turns of each tile; 8 times the work.",
)
@option(
    RUNNING,
    "--block",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Side of what one task writes.  [default: chosen]",
)
@option(
    RUNNING,
    "--tile",
    type=click.IntRange(min=1),
    metavar="PX",
    help="Side of one forward pass.  [default: chosen]",
)
@scheduler_option
@workers_option
@option(
    RUNNING,
    "--overlap",
    type=click.Choice(OVERLAPS),
    default="auto",
    show_default=True,
    help="How blocks get their halo; results are the same.",
)
@verbose_option(RUNNING)
@quiet_option(RUNNING)
def segment(
    images: tuple[str, ...],
    *,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    intensity: tuple[tuple[float, float], ...],
    **settings: Any,
) -> None:
    """Segment each IMAGE (OME-Zarr) with a model and write the result beside it.

    The label goes to IMAGE/labels/NAME and is what the network would give if the whole image
    fitted in memory. It is listed once it is complete, never before.
    """
    if settings["output"] and len(images) > 1:
        raise click.UsageError("--output names the result of one image: give one IMAGE at a time.")
    from bigunet.pipeline import plan_image, segment_image

    settings["intensity"] = intensity or None

    def plan(image: str) -> Result:
        planned = plan_image(image, timed=True, **settings)
        for note in planned.notes:
            Reporter(quiet=quiet).say(note)
        return planned

    def run(image: str) -> Result:
        with Reporter(quiet=quiet) as report:
            return segment_image(image, progress=report, **settings)

    for_each_image(images, plan if dry_run else run, as_json=as_json, verbose=verbose)
