"""``bigunet tune``: measure which runtime and tile are fastest on this machine."""

from __future__ import annotations

import click

from .command import Command, option
from .options import (
    MAIN,
    PRECISIONS,
    device_option,
    json_option,
    parse_bytes,
    quiet_option,
    verbose_option,
)
from .report import Reporter, echo

__all__ = ["tune"]


@click.command(cls=Command, short_help="Measure what is fastest on this machine.")
@click.argument("model", metavar="MODEL")
@device_option
@option(
    MAIN,
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS[1:]),
    multiple=True,
    help="Try only this; may be given several times.  [default: float32, bfloat16]",
)
@option(
    MAIN,
    "--memory-limit",
    type=parse_bytes,
    metavar="SIZE",
    help="Memory that a forward pass may take, such as 4GB.  [default: half of what there is]",
)
@option(MAIN, "--save", is_flag=True, help="Let runs on this machine take the best from now on.")
@json_option(MAIN)
@verbose_option(MAIN)
@quiet_option(MAIN)
def tune(
    model: str,
    *,
    device: str,
    precisions: tuple[str, ...],
    memory_limit: int | None,
    save: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Measure how fast each runtime and tile runs MODEL here; takes a minute or two.

    Nothing of it depends on images. Runs follow a fixed rule until --save stores the best: for
    this machine, and for networks of this size.
    """
    from bigunet.cluster import available_memory
    from bigunet.models.checkpoint import load_model
    from bigunet.tuning import tune as measure

    with Reporter(quiet=quiet) as report:
        result = measure(
            load_model(model),
            device=device,
            precisions=precisions or ("float32", "bfloat16"),
            memory=memory_limit or available_memory() // 2,
            store=save,
            progress=report.parts("tune"),
        )
    echo(result, as_json=as_json)
