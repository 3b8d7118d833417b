"""``bigunet train``: annotated images in, a model out."""

from __future__ import annotations

from typing import Any

import click

from .command import Command, option
from .options import (
    INPUT,
    MAIN,
    OUTPUT,
    RUNNING,
    device_option,
    parse_channels,
    quiet_option,
    verbose_option,
)
from .report import talk

__all__ = ["train"]


SETTINGS = (
    *("width", "depth", "recipe", "epochs", "steps"),
    *("tile", "learning_rate", "patience", "seed"),
)


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names of a list with commas."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise click.BadParameter(f"'{text}' is not a list of names such as background,nucleus")
    return names


@click.command(
    cls=Command,
    short_help="Train a model on annotated images.",
    after_interrupt="Epochs that were finished are kept. Go on with --resume.",
    resumable=True,
)
@click.argument("data", metavar="DATA...", nargs=-1, required=True)
@option(MAIN, "--output", metavar="MODEL.pt", required=True, help="Model file to write.")
@option(
    MAIN,
    "--masks",
    type=click.Choice(("auto", "classes", "instances")),
    default="auto",
    show_default=True,
    help="What the numbers in masks are.",
)
@option(MAIN, "--val", metavar="FOLDER|CSV", help="Images to hold back.  [default: a fifth]")
@option(
    MAIN,
    "--epochs",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="How long to train at most.",
)
@option(MAIN, "--init", metavar="MODEL", help="Begin with this model instead of at random.")
@option(MAIN, "--resume", is_flag=True, help="Go on where the same command stopped.")
@option(MAIN, "--overwrite", is_flag=True, help="Replace an existing model and its log.")
@option(INPUT, "--mask-suffix", metavar="TEXT", help="What masks' names have behind images'.")
@option(INPUT, "--classes", type=parse_names, metavar="NAMES", help="Names, background first.")
@option(INPUT, "--ignore", type=int, metavar="VALUE", help="Value of pixels nobody judged.")
@option(
    INPUT,
    "--channels",
    type=parse_channels,
    metavar="LIST",
    help="Channels of OME-Zarr images, by index or name.  [default: all]",
)
@option(INPUT, "--labels", metavar="NAME", help="Labels of OME-Zarr images that are the truth.")
@option(
    OUTPUT,
    "--width",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Features at the finest level; the paper's network has 64.",
)
@option(
    OUTPUT,
    "--depth",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Poolings; the paper's network has 4.",
)
@option(OUTPUT, "--tensorboard", metavar="FOLDER", help="Also log for TensorBoard, into FOLDER.")
@option(
    RUNNING,
    "--recipe",
    type=click.Choice(("fast", "paper")),
    default="fast",
    show_default=True,
    help="AdamW, in bfloat16 where the device has units for it; or the paper's optimiser.",
)
@option(
    RUNNING,
    "--steps",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Tiles in an epoch.",
)
@option(
    RUNNING,
    "--tile",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="PX",
    help="Side of a tile's output; the paper's is 388.",
)
@option(
    RUNNING,
    "--scale",
    type=click.FloatRange(min=1),
    default=1.0,
    show_default=True,
    metavar="FACTOR",
    help="Make objects up to so many times larger or smaller; the paper has none.",
)
@option(
    RUNNING,
    "--learning-rate",
    type=float,
    metavar="RATE",
    help="Step of the optimiser.  [default: the recipe's]",
)
@option(
    RUNNING,
    "--patience",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Stop after so many epochs in a row that are worse than one before.",
)
@option(
    RUNNING,
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Of all that is drawn by chance.",
)
@device_option
@verbose_option(RUNNING)
@quiet_option(RUNNING)
def train(data: tuple[str, ...], *, output: str, verbose: bool, quiet: bool, **given: Any) -> None:
    """Train a U-Net on DATA: folders with images/ and masks/, or OME-Zarr images with labels.

    Writes MODEL.pt, the best network so far, and beside it a log (.csv), a picture of
    images that were held back (.png) and what --resume needs (.state.pt).
    """
    from bigunet.training.augment import Augmentation
    from bigunet.training.fit import train as run
    from bigunet.training.settings import Training

    settings = Training(
        augmentation=Augmentation(scale=given.pop("scale")),
        **{name: given.pop(name) for name in SETTINGS},
    )
    trained = run(
        data[0] if len(data) == 1 else data,
        output,
        settings=settings,
        progress=None if quiet else talk,
        **given,
    )
    click.echo(str(trained.path))
