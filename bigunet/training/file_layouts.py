"""Find files of images and masks: paired by name, or as the Cell Tracking Challenge has them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bigunet.errors import InputError
from bigunet.training.files import SUFFIXES
from bigunet.training.pairs import Layout, Pair, source_path

__all__ = ["find_files"]

_IMAGES, _MASKS = ("images", "image"), ("masks", "mask", "labels", "label")


def find_files(folder: Path, mask_suffix: str | None) -> Layout:
    """Find images and masks in a folder of either layout; see `bigunet.training.layouts`.

    Raises
    ------
    InputError
        If it is no such folder, or no image has a mask.
    """
    sequences = _sequences(folder)
    if sequences:
        return _find_frames(folder, sequences)
    found = [
        next((folder / n for n in names if (folder / n).is_dir()), None)
        for names in (_IMAGES, _MASKS)
    ]
    images, masks = found
    if images is None or masks is None:
        missing = "images" if images is None else "masks"
        raise InputError(
            f"{folder} has no folder {missing!r}: training data is a folder with images/ and "
            "masks/, OME-Zarr images with labels, or a Cell Tracking Challenge folder"
        )
    return _pair_by_name(images, masks, mask_suffix or "")


def _pair_by_name(images: Path, masks: Path, suffix: str) -> Layout:
    suffix = _stem(Path(suffix)) if Path(suffix).suffix.lower() in SUFFIXES else suffix
    pictures, annotated = _by_stem(images), _by_stem(masks)
    names = [name for name in pictures if name + suffix in annotated]
    if not names:
        raise InputError(_no_pairs(images, masks, pictures, annotated, suffix))
    pairs = tuple(
        Pair(name=n, group=n, pixels=pictures[n], mask=annotated[n + suffix]) for n in names
    )
    used = {pair.mask for pair in pairs}
    notes = [
        _left_out("image", "has no mask", [n for n in pictures if n not in names]),
        _left_out("mask", "has no image", [n for n, p in annotated.items() if p not in used]),
    ]
    return Layout(pairs=pairs, notes=tuple(filter(None, notes)))


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if _stem(path) in found:
            raise InputError(
                f"{found[_stem(path)]} and {path.name} have one name: keep one of them"
            )
        found[_stem(path)] = path
    return found


def _stem(path: Path) -> str:
    return path.stem.removesuffix(".ome")


def _no_pairs(
    images: Path,
    masks: Path,
    pictures: Mapping[str, Path],
    annotated: Mapping[str, Path],
    suffix: str,
) -> str:
    for folder, found in ((images, pictures), (masks, annotated)):
        if not found:
            return f"{folder} holds no image: {', '.join(SUFFIXES)} are read"
    first, mask = next(iter(pictures)), next(iter(annotated))
    endings = {m[len(p) :] for p in pictures for m in annotated if m.startswith(p)}
    way = f"; try --mask-suffix {min(endings)}" if len(endings) == 1 and endings != {suffix} else ""
    return (
        f"no image in {images} has a mask of its name in {masks}: {first!r} would need "
        f"{first + suffix!r}, and there is {mask!r}{way}"
    )


def _left_out(what: str, why: str, names: Sequence[str], most: int = 3) -> str:
    if not names:
        return ""
    listed = ", ".join(names[:most]) + (" and more" if len(names) > most else "")
    return f"{len(names)} not used, because the {what} {why}: {listed}"


def _sequences(folder: Path) -> list[str]:
    return [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_dir() and re.fullmatch(r"\d+", path.name) and _truths(folder, path.name)
    ]


def _truths(folder: Path, sequence: str) -> list[Path]:
    """Return folders of truth, gold before silver."""
    places = [folder / f"{sequence}_{truth}" / "SEG" for truth in ("GT", "ST")]
    return [place for place in places if place.is_dir()]


def _find_frames(folder: Path, sequences: Sequence[str]) -> Layout:
    """Pair frames of the Cell Tracking Challenge; a sequence is a group."""
    pairs, without = [], []
    for sequence in sequences:
        for frame in sorted((folder / sequence).glob("t*.tif")):
            name = f"{sequence}_{frame.stem}"
            places = [t / f"man_seg{frame.stem[1:]}.tif" for t in _truths(folder, sequence)]
            mask = next((place for place in places if place.is_file()), None)
            if mask is None:
                without.append(name)
            else:
                pairs.append(Pair(name=name, group=sequence, pixels=frame, mask=mask))
    if not pairs:
        raise InputError(
            f"{folder}: no frame tNNN.tif has a man_segNNN.tif in its _GT/SEG or _ST/SEG "
            "(truth of single slices, man_seg_NNN_ZZZ.tif, is not read)"
        )
    silver = sum(source_path(pair.mask).parts[-3].endswith("_ST") for pair in pairs)
    notes = [
        _left_out("frame", "has no segmentation truth", without),
        f"{silver} of {len(pairs)} frames have silver truth only" if silver else "",
    ]
    return Layout(pairs=tuple(pairs), has_instances=True, notes=tuple(filter(None, notes)))
