"""``bigunet verify``: the user's own proof that seams are invisible."""

from __future__ import annotations

import click

from .command import Command, option
from .options import (
    MAIN,
    RUNNING,
    device_option,
    image_argument,
    json_option,
    labels_option,
    model_option,
    precision_option,
    quiet_option,
    verbose_option,
)
from .report import Reporter, echo

__all__ = ["verify"]


@click.command(cls=Command, short_help="Prove that a label has no seams.")
@image_argument
@labels_option
@model_option
@option(
    MAIN,
    "--windows",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="How many windows to compute again.",
)
@option(
    MAIN,
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Chooses where the windows lie.",
)
@device_option
@precision_option
@json_option(RUNNING)
@verbose_option(RUNNING)
@quiet_option(RUNNING)
def verify(
    image: str,
    *,
    labels: str,
    model: str,
    windows: int,
    seed: int,
    device: str,
    precision: str,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Compute windows across seams of a label of IMAGE again, in one piece, and compare.

    Prints the largest difference of scores and the number of pixels that differ. The exit code
    is 0 where the label is what the model gives, 1 where it is not.
    """
    from bigunet.verification import verify_image

    with Reporter(quiet=quiet) as report:
        result = verify_image(
            image,
            labels,
            model,
            windows=windows,
            seed=seed,
            device=device,
            precision=precision,
            progress=report.parts("verify"),
        )
    echo(result, as_json=as_json)
    if not result.ok:
        raise click.exceptions.Exit(1)
