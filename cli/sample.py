"""``bigunet sample``: a synthetic slide with truth."""

from __future__ import annotations

import click

from .command import Command, option
from .options import MAIN, quiet_option, verbose_option, workers_option
from .report import Reporter

__all__ = ["sample"]


@click.command(cls=Command, short_help="Write a synthetic slide with truth.")
@click.argument("path", metavar="NEW.zarr")
@option(
    MAIN,
    "--size",
    type=click.IntRange(min=1),
    default=8192,
    show_default=True,
    metavar="PX",
    help="Side of the slide.",
)
@option(
    MAIN,
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="The same seed and size give the same bytes.",
)
@workers_option
@verbose_option(MAIN)
@quiet_option(MAIN)
def sample(
    path: str, *, size: int, seed: int, workers: int | None, verbose: bool, quiet: bool
) -> None:
    """Write a synthetic fluorescence slide NEW.zarr (OME-Zarr 0.5), its truth in labels/truth."""
    from bigunet.images.sample import write_sample

    with Reporter(quiet=quiet) as report:
        written = write_sample(path, size, seed, workers, report.pixels("sample"))
    click.echo(str(written))
