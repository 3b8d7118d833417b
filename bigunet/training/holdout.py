"""Which images are held back from training: whole ones, and whole groups of them.

Neighbouring tiles, frames of one film and tiles of one field look alike. A model that
has seen one of them is no stranger to the others, and its score on them is flattered.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bigunet.errors import InputError
from bigunet.images.groups import one_line

__all__ = ["Row", "choose_groups", "read_split"]

SUBSETS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a table says of an image."""

    subset: str
    """``train``, ``val``; empty where the table has no such column."""
    group: str
    """Images of a group stay together; by default an image is its own group."""


def read_split(path: Path) -> dict[str, Row]:
    """Read a table of images: columns `name`, and `subset` or `group` or both.

    Parameters
    ----------
    path : path of a CSV file
        Rows of a subset other than ``train`` and ``val`` are left out.

    Returns
    -------
    dict of name to Row
        Names are without suffixes ``.png``, ``.tif`` and ``.tiff``.

    Raises
    ------
    InputError
        No such columns, a name twice, a group in both subsets, or nothing to train on.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = set(table.fieldnames or ())
            lines = list(table)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {one_line(error)}") from error
    if "name" not in columns or not columns & {"subset", "group"}:
        raise InputError(
            f"{path} has the columns {', '.join(sorted(columns)) or 'none'}: "
            "'name' is needed, and 'subset' or 'group'"
        )
    rows = _rows(path, lines, "subset" in columns)
    if "train" not in {row.subset or "train" for row in rows.values()}:
        raise InputError(f"{path} has no row whose subset is 'train'")
    _check_groups(path, rows)
    return rows


def _rows(
    path: Path, lines: Sequence[Mapping[str, str | None]], has_subset: bool
) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for line in lines:
        name = _without_suffix((line["name"] or "").strip())
        subset = (line.get("subset") or "").strip()
        if has_subset and subset not in SUBSETS:
            continue
        if name in rows:
            raise InputError(f"{path} names {name!r} twice")
        rows[name] = Row(subset=subset, group=(line.get("group") or "").strip() or name)
    return rows


def _without_suffix(name: str) -> str:
    return name.removesuffix(".png").removesuffix(".tif").removesuffix(".tiff")


def _check_groups(path: Path, rows: Mapping[str, Row]) -> None:
    subsets: dict[str, set[str]] = {}
    for row in rows.values():
        subsets.setdefault(row.group, set()).add(row.subset)
    both = sorted(group for group, found in subsets.items() if len(found) > 1)
    if both:
        raise InputError(
            f"{path} has group {both[0]!r} in train and in val: images of a group look alike, "
            "so they belong together"
        )


def choose_groups(groups: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """Choose groups to hold back, by chance, until a share of the images is reached.

    Law: what is chosen depends on the groups, the share and the seed, not on the order
    of images. At least one group is held back and one is left, where there are two.

    Parameters
    ----------
    groups : sequence of str
        The group of every image.
    share : float
        Of the images, 0 to less than 1; 0 holds nothing back.
    seed : int

    Returns
    -------
    frozenset of str

    Raises
    ------
    InputError
        The share is no such number.

    Examples
    --------
    >>> len(choose_groups(["a", "b", "c", "d", "e"], 0.4, seed=0))
    2
    """
    if not 0 <= share < 1:
        raise InputError(f"a share of {share} of the images cannot be held back: give 0 to 0.9")
    sizes = Counter(groups)
    if share == 0 or len(sizes) < 2:
        return frozenset()
    names = sorted(sizes)
    shuffled = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    held: list[str] = []
    for name in shuffled:
        # Nearest to the share: a group goes in if at least half of it fits.
        if sum(sizes[n] for n in held) + sizes[name] / 2 <= share * len(groups):
            held.append(name)
    if len(held) == len(names):
        held.pop()
    return frozenset(held or [min(shuffled, key=lambda name: sizes[name])])
