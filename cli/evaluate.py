"""``bigunet evaluate``: how good a segmentation is."""

from __future__ import annotations

from typing import Any

import click

from .command import Command, option
from .options import MAIN, json_option, quiet_option, verbose_option
from .report import Reporter, echo

__all__ = ["evaluate"]

KINDS = ("auto", "instances", "classes", "probabilities")


@click.command(cls=Command, short_help="Score a segmentation against the truth.")
@click.argument("prediction", metavar="PREDICTION")
@click.argument("truth", metavar="TRUTH")
@option(
    MAIN,
    "--kind",
    type=click.Choice(KINDS),
    default="auto",
    show_default=True,
    help="How values are read.",
)
@option(
    MAIN,
    "--connected/--ids",
    default=None,
    help="Objects of the prediction are its 4-connected regions, or its ids.  [default: regions "
    "where it has one value beside 0]",
)
@option(
    MAIN,
    "--threshold",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.5,
    show_default=True,
    metavar="P",
    help="Of probabilities, fixed beforehand; reported beside the best ones.",
)
@json_option(MAIN)
@verbose_option(MAIN)
@quiet_option(MAIN)
def evaluate(
    prediction: str, *, truth: str, as_json: bool, verbose: bool, quiet: bool, **settings: Any
) -> None:
    """Score PREDICTION against TRUTH: files, folders of files paired by name, OME-Zarr labels.

    Instances: AP and F1 at IoU 0.5 to 0.95, panoptic quality, SEG, Rand error, touching objects
    (4-neighbours) that were merged. Classes: IoU and Dice of each. Probabilities, and classes
    with one value beside 0: Rand, warping and pixel error of ISBI 2012, V_Rand and V_Info; objects
    are 4-connected. Pooled over images: counts are added, then divided.
    """
    from bigunet.metrics.evaluation import evaluate as score

    with Reporter(quiet=quiet) as report:
        result = score(prediction, truth, progress=report.pixels("evaluate"), **settings)
    echo(result, as_json=as_json)
