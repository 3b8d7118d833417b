"""From a plane of pixels to objects: `bigunet.segment`, and the rules of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import dask.array as da

from bigunet.inference import segment
from bigunet.instances.lazy import lazy_objects
from bigunet.instances.rules import Rules
from bigunet.models.unet import UNet

__all__ = ["objects"]


def objects(
    array: Any,
    model: UNet,
    *,
    min_area: int = 0,
    max_area: int | None = None,
    fill_holes: bool = False,
    split: Literal["distance"] | None = None,
    max_diameter: int | None = None,
    block: int | tuple[int, int] | None = None,
    tile: int | tuple[int, int] | None = None,
    device: str = "auto",
    runtime: str = "auto",
    precision: str = "auto",
    augment: str = "none",
    intensity: Sequence[tuple[float, float]] | None = None,
) -> tuple[da.Array, da.Array]:
    """Return an id for every object of a plane, as if the whole plane were one input.

    Objects are the 4-connected parts of each class but 0. The background gap that the model
    was trained with (``model.card.gap``) is undone: background between two objects within the
    gap goes to the nearer one. Ids, for any chunks, blocks, workers and order, are as
    exact as the classes that `bigunet.segment` gives.

    Parameters
    ----------
    array, model, block, tile, device, runtime, precision, augment, intensity
        As in `bigunet.predict`.
    min_area, max_area : int, optional
        Objects of fewer or more pixels are removed, and the others numbered anew.
    fill_holes : bool
        Fill background that one object encloses; what holds another object stays.
    split : {"distance"}, optional
        Split objects that grew together by a watershed on the distance map, for models
        that were not trained to separate them. Exact where the box of what hangs together
        before has sides of at most ``max_diameter``.
    max_diameter : int, optional
        In pixels; needed to split, and read around each block.

    Returns
    -------
    ids : (Y, X) dask array
        0 for background; 1 … N in raster order of each object's first pixel, before gaps and
        holes were filled. uint32 where the plane has fewer than 2**32 pixels, uint64 otherwise.
    classes : (N + 1,) uint8 dask array
        Class of each id, 0 of 0. Its length is known only when it is computed.
        ``dask.compute(ids, classes)`` segments once for both.

    Raises
    ------
    InputError
        The array does not fit the model, or an option cannot be used.
    """
    rules = Rules(
        gap=model.card.gap,
        fill_holes=fill_holes,
        min_area=min_area,
        max_area=max_area,
        split=split,
        max_diameter=max_diameter,
    )
    classes = segment(
        array,
        model,
        block=block,
        tile=tile,
        device=device,
        runtime=runtime,
        precision=precision,
        augment=augment,
        intensity=intensity,
    )
    return lazy_objects(classes, rules)
