"""A user's own proof that seams are invisible.

Windows across the seams of blocks are computed again, each in one piece, and
compared with what is stored and with the scores that tiles give. Of objects their
classes are compared, wherever none of their rules can have changed them, and pixels of
one class that touch have to have one id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bigunet.comparison import Comparison, Objects, Verification, pooled
from bigunet.errors import InputError
from bigunet.geometry import Block, Span, Tiling, pooling_grid
from bigunet.images.classification import read_classification
from bigunet.images.open import (
    Image,
    Plane,
    image_planes,
    open_image,
    open_labels,
    read_provenance,
)
from bigunet.masking.plan import open_mask
from bigunet.models.checkpoint import load_model, model_digest
from bigunet.models.devices import choose_device
from bigunet.models.predictor import Predictor
from bigunet.models.runtimes import choose_runtime
from bigunet.models.unet import UNet

__all__ = ["Verification", "verify_image"]

_SIDE = 256


def verify_image(
    path: str | Path,
    labels: str,
    model: UNet | str | Path,
    *,
    windows: int = 8,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Compute random windows across block seams again, in one piece, and compare.

    Parameters
    ----------
    path : path
        The slide.
    labels : str
        Name of a label that bigunet wrote, or the path of one outside the slide.
    model : UNet, path or name
        The network it was made with.
    windows : int
        How many windows, of 256 pixels a side.
    seed : int
        Chooses where they lie.
    progress : callable, optional
        Called with the windows done so far, and in all.

    Raises
    ------
    NotFoundError
        The slide has no such label.
    InputError
        bigunet did not write the label, or made it with another model.
    """
    network = model if isinstance(model, UNet) else load_model(model)
    image = open_image(path)
    if read_provenance(image) is not None:
        raise InputError(
            f"{image.path} is a result of bigunet, not a slide; pass the slide, and the path of "
            f"the labels with --labels"
        )
    label_image = open_labels(image, labels)
    record = _record(label_image)
    _check_model(record, network, labels)
    level, channels = int(record["level"]), tuple(record["channels"])
    planes = image_planes(image, level, channels)
    label_planes = image_planes(label_image, 0, (0,))
    tiling = _tiling(record, network, planes[0])
    by_tiles, by_one = _predictors(record, network, device, precision)
    limits = record["intensity"]["limits"]
    comparison = Comparison(
        tiling=tiling,
        by_tiles=by_tiles,
        by_one=by_one,
        limits=limits and tuple((lo, hi) for lo, hi in limits),
        objects=_objects(label_image, record),
    )
    mask = open_mask(image, level, record["mask"]) if record.get("mask") else None
    rng = np.random.default_rng(seed)
    found = []
    for number, window in enumerate(_windows(tiling, _region(record, tiling), windows, rng)):
        if progress:
            progress(number, windows)
        at = int(rng.integers(len(planes)))
        stored = label_planes[at].read(window.y.slice, window.x.slice)[0]
        inside = None if mask is None else mask.read(at, window.y.slice, window.x.slice)
        found.append(comparison.compare(window, planes[at], stored, inside))
    if progress:
        progress(windows, windows)
    return pooled(found)


def _objects(labels: Image, record: Mapping[str, Any]) -> Objects | None:
    """Return what is known of objects; None where a label holds classes."""
    made = record.get("objects")
    if made is None:
        return None
    classes = read_classification(labels).numbers
    if classes is None:
        raise InputError(f"{labels.path} has lost the classes of its objects; segment again")
    return Objects(
        classes=classes,
        fills=made["gap"] > 0 or made["fill_holes"],
        removes=made["min_area"] > 0 or made["max_area"] is not None,
        splits=made["split"] is not None,
    )


def _record(labels: Image) -> Mapping[str, Any]:
    """Return what bigunet wrote about a label."""
    record = read_provenance(labels)
    if record is None:
        raise InputError(f"{labels.path} was not written by bigunet, so nothing says how")
    return record


def _check_model(record: Mapping[str, Any], network: UNet, labels: str) -> None:
    made, given = record["model"]["digest"], model_digest(network)
    if made != given:
        raise InputError(
            f"label '{labels}' was made with model '{record['model']['name']}' "
            f"(digest {made[:12]}), not with this one ({given[:12]}); pass that model"
        )


def _predictors(
    record: Mapping[str, Any], network: UNet, device: str, precision: str
) -> tuple[Predictor, Predictor]:
    """Return what computes tiles as the run did, as far as this machine can, and one piece.

    In float32 the one piece is torch's, so that a runtime is checked by another.
    """
    device, _ = choose_device(device)
    precision = record["precision"] if precision == "auto" else precision
    try:
        runtime = choose_runtime(record.get("runtime", "eager"), device, precision)
    except InputError:
        runtime = "eager"
    by_tiles = Predictor.of(
        network,
        device=device,
        precision=precision,
        runtime=runtime,
        augment=record.get("augment", "none"),
        batch=record.get("batch", 1),
    )
    return by_tiles, replace(by_tiles, runtime="eager") if precision == "float32" else by_tiles


def _tiling(record: Mapping[str, Any], network: UNet, plane: Plane) -> Tiling:
    tile, block = record["tile"], record["block"]
    return Tiling(
        shape=(plane.shape[1], plane.shape[2]),
        depth=network.depth,
        tile=(tile[0], tile[1]),
        block=(block[0], block[1]),
    )


def _region(record: Mapping[str, Any], tiling: Tiling) -> tuple[Span, Span]:
    rows, columns = record["region"] or [(0, size) for size in tiling.shape]
    return Span(*rows), Span(*columns)


def _windows(
    tiling: Tiling, region: tuple[Span, Span], count: int, rng: np.random.Generator
) -> Iterator[Block]:
    """Draw windows near corners where blocks meet, cut to the region."""
    for _ in range(count):
        y, x = (
            _window(sizes, allowed, pooling_grid(tiling.depth), rng)
            for sizes, allowed in zip(tiling.chunks, region, strict=True)
        )
        yield Block((0, 0), y, x)


def _window(sizes: Sequence[int], allowed: Span, grid: int, rng: np.random.Generator) -> Span:
    seams = [int(s) for s in np.cumsum(sizes)[:-1] if allowed.start < s < allowed.stop]
    middle = rng.choice(seams) if seams else rng.integers(allowed.start, allowed.stop)
    first = int(middle + rng.integers(-_SIDE // 4, _SIDE // 4 + 1)) - _SIDE // 2
    latest = max(allowed.start, allowed.stop - _SIDE)
    first = min(max(first, allowed.start), latest) // grid * grid
    return Span(first, first + _SIDE).cut(allowed)
