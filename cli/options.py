"""Every option that more than one command has, and the parsers of options, once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import click

from .command import F, option

__all__ = [
    "INPUT",
    "MAIN",
    "OBJECTS",
    "OUTPUT",
    "RUNNING",
    "channels_option",
    "device_option",
    "image_argument",
    "images_argument",
    "json_option",
    "labels_option",
    "model_option",
    "parse_bytes",
    "parse_channels",
    "parse_intensity",
    "parse_outputs",
    "parse_region",
    "precision_option",
    "quiet_option",
    "region_option",
    "runtime_option",
    "scheduler_option",
    "verbose_option",
    "workers_option",
]

MAIN, INPUT, OUTPUT, OBJECTS, RUNNING = "Most used", "Input", "Output", "Objects", "Running"

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
RUNTIMES = ("auto", "eager", "compile", "openvino")
OUTPUTS = ("objects", "classes", "probabilities")


def parse_intensity(text: str) -> tuple[float, float]:
    """Return the limits of ``LO,HI``, two finite numbers, the first one smaller."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"'{text}' is not LO,HI, two numbers such as 100,4000") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise click.BadParameter(f"'{text}': LO has to be smaller than HI, and both finite")
    return low, high


def parse_region(text: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ``((y0, y1), (x0, x1))`` of ``Y0:Y1,X0:X1``, in pixels of the level used."""
    match = re.fullmatch(r"\s*(-?\d+):(-?\d+)\s*,\s*(-?\d+):(-?\d+)\s*", text)
    if match is None:
        raise click.BadParameter(
            f"'{text}' is not Y0:Y1,X0:X1, four numbers such as 0:1024,2048:4096"
        )
    y0, y1, x0, x1 = map(int, match.groups())
    if min(y0, x0) < 0 or y1 <= y0 or x1 <= x0:
        raise click.BadParameter(
            f"'{text}': starts cannot be negative, and stops lie behind their starts"
        )
    return (y0, y1), (x0, x1)


def parse_channels(text: str) -> tuple[int | str, ...]:
    """Return indices (whole numbers) and names of a list with commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise click.BadParameter(
            f"'{text}' is not a list of indices or names such as 0 or DAPI,GFP"
        )
    channels = tuple(int(part) if re.fullmatch(r"-?\d+", part) else part for part in parts)
    if any(isinstance(channel, int) and channel < 0 for channel in channels):
        raise click.BadParameter(f"'{text}': an index cannot be negative")
    return channels


def parse_bytes(text: str) -> int:
    """Return a number of bytes, at least one, of ``8GB`` or ``500MiB``."""
    from dask.utils import parse_bytes as parse

    try:
        size = int(parse(text))
    except ValueError:
        raise click.BadParameter(
            f"'{text}' is not a size in memory such as 8GB or 500MiB"
        ) from None
    if size < 1:
        raise click.BadParameter(f"'{text}': a limit of memory has to be larger than 0")
    return size


def parse_outputs(text: str) -> tuple[str, ...]:
    """Return the kinds of output of a list with commas, each once."""
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [kind for kind in kinds if kind not in OUTPUTS]
    if unknown:
        raise click.BadParameter(f"'{unknown[0]}' is not one of {', '.join(OUTPUTS)}")
    return kinds


# Paths stay text: a URL that went through pathlib is no URL any more.
image_argument = click.argument("image", metavar="IMAGE")
images_argument = click.argument("images", metavar="IMAGE...", nargs=-1, required=True)

model_option = option(
    MAIN,
    "--model",
    metavar="PATH_OR_NAME",
    required=True,
    help="Model file, as bigunet.save_model writes it, or the name of a model that ships.",
)
device_option = option(
    MAIN,
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Where the network runs.",
)
precision_option = option(
    RUNNING,
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    show_default=True,
    help="Numbers the network computes with; auto is bfloat16 on CUDA where it has units for it, else float32.",
)
runtime_option = option(
    RUNNING,
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="What computes it; auto: OpenVINO on a CPU where it is installed, else torch (eager).",
)


channels_option = option(
    MAIN,
    "--channels",
    type=parse_channels,
    metavar="LIST",
    help="Channels by index or name: 0 or DAPI,GFP.",
)
region_option = option(
    INPUT,
    "--region",
    type=parse_region,
    metavar="Y0:Y1,X0:X1",
    help="Only this window: rows and columns in pixels of the level used.",
)
workers_option = option(
    RUNNING,
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Blocks worked on at once.  [default: chosen]",
)
scheduler_option = option(
    RUNNING,
    "--scheduler",
    metavar="WHERE",
    help="threads, sync, processes, slurm, or the address or scheduler file of a Dask cluster.  "
    "[default: DASK_SCHEDULER_ADDRESS, or threads]",
)
labels_option = option(
    MAIN, "--labels", metavar="NAME", required=True, help="Name of a label of the image."
)


def json_option(heading: str) -> Callable[[F], F]:
    """Return the decorator of --json under a heading."""
    return option(heading, "--json", "as_json", is_flag=True, help="Print results as JSON lines.")


def verbose_option(heading: str) -> Callable[[F], F]:
    """Return the decorator of -v under a heading; `Command` obeys it."""
    return option(
        heading,
        "-v",
        "--verbose",
        is_flag=True,
        help="Show tracebacks of errors and warnings of libraries.",
    )


def quiet_option(heading: str) -> Callable[[F], F]:
    """Return the decorator of -q under a heading."""
    return option(
        heading, "-q", "--quiet", is_flag=True, help="Say nothing but results and warnings."
    )
