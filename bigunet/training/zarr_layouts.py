"""Find planes of OME-Zarr images and of the labels that annotate them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bigunet.errors import InputError
from bigunet.images.image import Image, check_chunk_memory, sizes_text
from bigunet.images.open import open_image, open_labels
from bigunet.images.planes import Plane, image_planes
from bigunet.images.selection import choose_channels
from bigunet.training.pairs import Layout, Pair

__all__ = ["find_planes"]

MOST_CHUNK = 2**32
"""Bytes that one decoded chunk may take."""
MOST_PIXELS = 2**28
"""Pixels of a plane: training holds whole planes in memory."""


def find_planes(
    stores: Sequence[Path], labels: str | None, channels: Sequence[int | str] | None
) -> Layout:
    """Pair every plane of images with its labels; an image is a group.

    The finest labels are taken, and the level of the image that has their size.

    Raises
    ------
    InputError
        No labels, several and none chosen, sizes that differ, or planes too large.
    """
    pairs: list[Pair] = []
    sizes: set[float | None] = set()
    for store in stores:
        image = open_image(store)
        level, found = _label_level(image, open_labels(image, _label_name(image, labels)))
        wanted = range(len(image.channels)) if channels is None else channels
        chosen = choose_channels(image, list(wanted), len(wanted))
        planes = image_planes(image, level, chosen)
        name = image.name if [s.name for s in stores].count(store.name) == 1 else str(store)
        pairs += _plane_pairs(image, name, planes, image_planes(found, 0, (0,)))
        sizes.add(image.pixel_size(level))
    same = len(sizes) == 1
    notes = () if same else ("the images have pixels of different sizes",)
    return Layout(pairs=tuple(pairs), pixel_size=sizes.pop() if same else None, notes=notes)


def _label_name(image: Image, wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    if len(image.labels) != 1:
        has = f"several labels ({', '.join(image.labels)})" if image.labels else "no labels"
        way = "say which with --labels" if image.labels else "they are the annotation"
        raise InputError(f"{image.path} has {has}: {way}")
    return image.labels[0]


def _label_level(image: Image, labels: Image) -> tuple[int, Image]:
    """Return the level of the image that has the size of the finest labels."""
    shape = labels.levels[0].shape[-2:]
    level = next((i for i, n in enumerate(image.levels) if n.shape[-2:] == shape), None)
    if level is None:
        sizes = ", ".join(sizes_text(n.shape[-2:]) for n in image.levels)
        raise InputError(
            f"{labels.path} has {sizes_text(shape)} pixels and the levels of its image {sizes}: "
            "the sizes have to be the same"
        )
    if shape[0] * shape[1] > MOST_PIXELS:
        raise InputError(
            f"{image.path} has {sizes_text(shape)} pixels, of which training would hold all in "
            "memory: cut the annotated part out"
        )
    check_chunk_memory(image, level, MOST_CHUNK)
    check_chunk_memory(labels, 0, MOST_CHUNK)
    return level, labels


def _plane_pairs(
    image: Image, name: str, planes: Sequence[Plane], masks: Sequence[Plane]
) -> list[Pair]:
    if len(planes) != len(masks):
        raise InputError(
            f"{image.path}: the image has {len(planes)} and its labels have {len(masks)} planes "
            "over t and z: each plane needs its own"
        )
    return [
        Pair(name=name, group=name, pixels=p, mask=m) for p, m in zip(planes, masks, strict=True)
    ]
