"""Annotated images for training: found, checked once, and split.

Opening reads every file once, so that one that is broken is named before the first
step and not in the middle of the night. Nothing of it is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bigunet.errors import InputError
from bigunet.training.examples import Example, Facts, inspect
from bigunet.training.holdout import Row, choose_groups, read_split
from bigunet.training.layouts import Paths, find_pairs
from bigunet.training.mask_rules import Kind, choose_rule
from bigunet.training.pairs import Layout, Pair, source_path

__all__ = ["Dataset", "Example", "open_dataset"]

Examples: TypeAlias = tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Annotated images, split into those to learn from and those held back."""

    train: tuple[Example, ...]
    val: tuple[Example, ...]
    """Empty where nothing could be held back; `notes` then says so."""
    class_names: tuple[str, ...]
    in_channels: int
    kind: Kind
    """How masks are read."""
    dtype: np.dtype[Any]
    """One that holds the pixels of all images."""
    pixel_size: float | None
    """Side of a pixel in micrometres, where all images agree."""
    notes: tuple[str, ...]
    """Lines for the user: what is not used, and why."""

    @property
    def is_rgb(self) -> bool:
        """Whether the images are colour pictures: three channels of 8 bits."""
        return self.in_channels == 3 and self.dtype == np.uint8


def open_dataset(
    data: Paths,
    *,
    masks: str = "auto",
    mask_suffix: str | None = None,
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    val: str | Path | None = None,
    val_share: float = 0.2,
    seed: int = 0,
    labels: str | None = None,
    channels: Sequence[int | str] | None = None,
) -> Dataset:
    """Open annotated images; every file is read once and nothing is kept.

    Parameters
    ----------
    data : path, or sequence of paths
        A folder with ``images/`` and ``masks/``, a folder of the Cell Tracking
        Challenge, or OME-Zarr images whose labels are the annotation.
    masks : {"auto", "classes", "instances"}
        What the numbers in masks are; see `choose_rule`.
    mask_suffix : str, optional
        What a mask's name has behind that of its image.
    classes : sequence of str, optional
        Names, background first.
    ignore : int, optional
        Value of pixels about which nothing is known; never implied by 0.
    val : path, optional
        Images to hold back: another such folder, or a CSV file with the columns
        `name`, and `subset` (``train``, ``val``) or `group` or both. A table says
        which images are used, too. Where it has no row ``val``, and without `val`,
        whole images (whole groups, where there are any) are held back by chance.
    val_share : float
        Of the images, to be held back by chance; 0 for none.
    seed : int
        Of that chance.
    labels : str, optional
        Name of the labels in OME-Zarr images.
    channels : sequence of int or str, optional
        Channels of OME-Zarr images; all by default.

    Returns
    -------
    Dataset

    Raises
    ------
    NotFoundError
        If there is nothing at a path.
    InputError
        Data that cannot be used; one line that names the file and the way out.
    DependencyError
        If a package is needed to read a file.
    """
    found = find_pairs(data, mask_suffix=mask_suffix, labels=labels, channels=channels)
    others = Layout(pairs=())
    rows: dict[str, Row] | None = None
    if val is not None and Path(val).suffix.lower() == ".csv":
        rows = read_split(Path(val))
    elif val is not None:
        others = find_pairs(val, mask_suffix=mask_suffix, labels=labels, channels=channels)
        _check_apart(found.pairs, others.pairs)
    used, notes = (found.pairs, ()) if rows is None else _listed_pairs(found.pairs, rows)
    inspected = [inspect(pair) for pair in (*used, *others.pairs)]
    dtype, in_channels = _check_alike(inspected)
    if found.has_instances and masks == "auto":
        masks = "instances"
    counts = sum((facts.values for facts in inspected), Counter[int]())
    rule, names = choose_rule(counts, masks=masks, classes=classes, ignore=ignore)
    examples = [facts.example(rule, _group(facts, rows)) for facts in inspected]
    train, held = _split(examples, len(used), rows, val_share, seed)
    if not any(example.has_objects for example in train):
        raise InputError("the masks to train with are empty: objects are in held-back images only")
    return Dataset(
        train=train,
        val=held,
        class_names=names,
        in_channels=in_channels,
        kind=rule.kind,
        dtype=dtype,
        pixel_size=found.pixel_size,
        notes=(*found.notes, *others.notes, *notes, *_split_notes(train, held)),
    )


def _check_alike(inspected: Sequence[Facts]) -> tuple[np.dtype[Any], int]:
    """Return the common type and the number of channels of all images."""
    first = inspected[0]
    for facts in inspected:
        if facts.shape[0] != first.shape[0]:
            pairs = (f"{source_path(f.pair.pixels)} has {f.shape[0]}" for f in (first, facts))
            raise InputError(
                f"the images differ in their number of channels: {' and '.join(pairs)}; "
                "train on one kind of image at a time"
            )
        if facts.dtype != first.dtype and first.shape[0] == 3:
            # Colour of 8 bits keeps its range, everything else is measured.
            kinds = (f"{source_path(f.pair.pixels)} is {f.dtype}" for f in (first, facts))
            raise InputError(
                f"images of three channels differ in type: {' and '.join(kinds)}; store all alike"
            )
    return np.result_type(*{facts.dtype for facts in inspected}), first.shape[0]


def _listed_pairs(
    pairs: Sequence[Pair], rows: dict[str, Row]
) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """Return the pairs that a table names, and what to say of the others."""
    used = tuple(pair for pair in pairs if pair.name in rows)
    if not used:
        raise InputError(
            f"the table names no image that is there: it has {next(iter(rows))!r}, "
            f"and there is {pairs[0].name!r}"
        )
    absent = set(rows) - {pair.name for pair in used}
    notes = (
        (len(pairs) - len(used), "images that are not in the table and not used", ""),
        (len(absent), "images in the table that are not there", f" ({min(absent, default='')!r})"),
    )
    return used, tuple(f"{what}: {count}{one}" for count, what, one in notes if count)


def _check_apart(pairs: Sequence[Pair], others: Sequence[Pair]) -> None:
    places = {source_path(pair.pixels).resolve() for pair in pairs}
    both = [pair for pair in others if source_path(pair.pixels).resolve() in places]
    if both:
        raise InputError(
            f"{source_path(both[0].pixels)} is to be trained on and held back: give other images"
        )


def _split(
    examples: Sequence[Example],
    own: int,
    rows: dict[str, Row] | None,
    share: float,
    seed: int,
) -> tuple[Examples, Examples]:
    """Split into those to train on and those held back; the first `own` are no others."""
    train, held = examples[:own], examples[own:]
    if held:
        return tuple(train), tuple(held)
    if rows and any(rows[example.name].subset == "val" for example in train):
        chosen = {e.group for e in train if rows[e.name].subset == "val"}
    else:
        chosen = set(choose_groups([e.group for e in train], share, seed))
    return (
        tuple(e for e in train if e.group not in chosen),
        tuple(e for e in train if e.group in chosen),
    )


def _split_notes(train: Examples, held: Examples) -> tuple[str, ...]:
    if held:
        empty = not any(example.has_objects for example in held)
        return ("no image that is held back has an object",) if empty else ()
    what = "there is one image only" if len(train) == 1 else "all images train"
    if len(train) > 1 and len({example.group for example in train}) == 1:
        what = f"all {len(train)} images are of one group"
    return (f"nothing is held back, because {what}: there is no validation score",)


def _group(facts: Facts, rows: dict[str, Row] | None) -> str:
    return rows[facts.pair.name].group if rows else facts.pair.group
