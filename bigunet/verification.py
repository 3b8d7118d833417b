"""A user's own proof that seams are invisible.

Windows across the seams of blocks are computed again, each in one piece, and
compared with what is stored and with the scores that tiles give. Of objects their
classes are compared, wherever none of their rules can have changed them, and pixels of
one class that touch have to have one id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigunet.errors import InputError
from bigunet.geometry import Block, Span, Tiling, legal_output, mirror_span, pooling_grid
from bigunet.images.classification import read_classification
from bigunet.images.intensity import Limits
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
from bigunet.tiles import mirrored, predict_block

__all__ = ["Verification", "verify_image"]

_SIDE = 256
_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What came out of computing windows again."""

    windows: int
    pixels: int
    """Compared in all windows."""
    differing: int
    """Pixels whose stored class is another, or whose object ends at a neighbour of its class, ties
    apart."""
    ties: int
    """Pixels whose two best scores are nearer than the tolerance, and whose class differs."""
    score_difference: float
    """Largest difference between scores of tiles and of one piece."""
    tolerance: float
    """What float32 allows: 1e-5 · max(1, largest |score|); twice that for an average."""

    @property
    def ok(self) -> bool:
        """Tell whether the label is what the network gives."""
        return self.differing == 0 and self.score_difference <= self.tolerance

    def lines(self) -> list[str]:
        """Return the verdict in words."""
        verdict = "no seams" if self.ok else "NOT what the model gives"
        return [
            f"{self.windows} windows, {self.pixels} pixels: {verdict}",
            f"largest score difference {self.score_difference:.3g} (float32 allows "
            f"{self.tolerance:.3g})",
            f"{self.differing} pixels differ; {self.ties} more are ties",
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "ok": self.ok,
            "windows": self.windows,
            "pixels": self.pixels,
            "differing": self.differing,
            "ties": self.ties,
            "score_difference": self.score_difference,
            "tolerance": self.tolerance,
        }


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
    objects = _objects(label_image, record)
    mask = open_mask(image, level, record["mask"]) if record.get("mask") else None
    limits = record["intensity"]["limits"]
    limits = limits and tuple((lo, hi) for lo, hi in limits)
    rng = np.random.default_rng(seed)
    found = []
    for number, window in enumerate(_windows(tiling, _region(record, tiling), windows, rng)):
        if progress:
            progress(number, windows)
        at = int(rng.integers(len(planes)))
        stored = label_planes[at].read(window.y.slice, window.x.slice)[0]
        inside = None if mask is None else mask.read(at, window.y.slice, window.x.slice)
        found.append(
            _compare(window, planes[at], stored, objects, inside, tiling, by_tiles, by_one, limits)
        )
    if progress:
        progress(windows, windows)
    return _pooled(found)


@dataclass(frozen=True, kw_only=True)
class _Objects:
    """What a label of objects says of itself."""

    classes: npt.NDArray[np.integer[Any]]
    """(N + 1,), of each id."""
    fills: bool
    """Whether background may have become part of an object."""
    removes: bool
    """Whether objects may have become background."""
    splits: bool
    """Whether pixels of one class that touch may be parts of two objects."""

    def wrong(self, ids: np.ndarray, network: np.ndarray) -> npt.NDArray[np.bool_]:
        """Tell of each pixel (y, x) whether it cannot be what the network's classes give."""
        unknown = ids >= self.classes.size
        stored = self.classes[np.where(unknown, 0, ids)]
        same = ~unknown & (stored == network)
        wrong: npt.NDArray[np.bool_] = ~same
        if self.fills:
            wrong &= unknown | (network > 0) | (ids == 0)
        if self.removes:
            wrong &= unknown | (ids > 0)
        return wrong if self.splits else wrong | _torn(ids, np.where(same, network, 0))


def _torn(ids: np.ndarray, classes: np.ndarray) -> npt.NDArray[np.bool_]:
    """Find pixels that touch one of their class with another id."""
    torn = np.zeros(ids.shape, dtype=bool)
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        torn[a] |= (classes[a] > 0) & (classes[a] == classes[b]) & (ids[a] != ids[b])
    return torn


def _objects(labels: Image, record: Mapping[str, Any]) -> _Objects | None:
    """Return what is known of objects; None where a label holds classes."""
    made = record.get("objects")
    if made is None:
        return None
    classes = read_classification(labels).numbers
    if classes is None:
        raise InputError(f"{labels.path} has lost the classes of its objects; segment again")
    return _Objects(
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


def _compare(
    window: Block,
    plane: Plane,
    stored: np.ndarray,
    objects: _Objects | None,
    inside: npt.NDArray[np.bool_] | None,
    tiling: Tiling,
    by_tiles: Predictor,
    by_one: Predictor,
    limits: Limits | None,
) -> Verification:
    """Compare one window: stored classes and tiled scores with those of one piece."""
    tiled = _in_tiles(window, plane, tiling, by_tiles, limits)
    whole = _in_one_piece(window, plane, tiling, by_one, limits)
    tolerance = _allowed(window, plane, whole, tiling, by_one, limits)
    classes = whole.argmax(0)
    if inside is not None:
        classes = np.where(inside, classes, 0)
    differs = stored != classes if objects is None else objects.wrong(stored, classes)
    ranked = np.sort(whole, axis=0)
    tie = ranked[-1] - ranked[-2] <= 2 * tolerance if len(ranked) > 1 else np.zeros_like(differs)
    if inside is not None:
        tie &= inside
    return Verification(
        windows=1,
        pixels=window.pixels,
        differing=int((differs & ~tie).sum()),
        ties=int((differs & tie).sum()),
        score_difference=float(np.abs(tiled - whole).max()),
        tolerance=tolerance,
    )


def _allowed(
    window: Block,
    plane: Plane,
    whole: np.ndarray,
    tiling: Tiling,
    predictor: Predictor,
    limits: Limits | None,
) -> float:
    """Return how far scores may differ, which goes with the logits that they were made of."""
    factor = 1.0
    if predictor.augment != "none":
        # A log-probability is a logit less a mean of logits: what each may be off adds up.
        factor, plain = 2.0, replace(predictor, augment="none")
        whole = _in_one_piece(window, plane, tiling, plain, limits)
    return factor * _TOLERANCE * max(1.0, float(np.abs(whole).max()))


def _in_tiles(
    window: Block, plane: Plane, tiling: Tiling, predictor: Predictor, limits: Limits | None
) -> np.ndarray:
    """Return the scores (K, y, x) of a window as the run computed them."""
    y, x = tiling.source(window)
    done = predict_block(
        plane.read(y.slice, x.slice),
        (y.start, x.start),
        window,
        tiling=tiling,
        predictor=predictor,
        limits=limits,
        kinds=("scores",),
    )
    return done["scores"]


def _in_one_piece(
    window: Block, plane: Plane, tiling: Tiling, predictor: Predictor, limits: Limits | None
) -> np.ndarray:
    """Return the same scores from one input that starts at the window."""
    grid = pooling_grid(tiling.depth)
    starts = window.y.start // grid * grid, window.x.start // grid * grid
    reads = [
        Span(start - tiling.margin, start + legal_output(span.stop - start, tiling.depth))
        for start, span in zip(starts, (window.y, window.x), strict=True)
    ]
    read = tuple(Span(r.start, r.stop + tiling.margin) for r in reads)
    source = [mirror_span(r, size) for r, size in zip(read, tiling.shape, strict=True)]
    pixels = plane.read(source[0].slice, source[1].slice)
    origin = source[0].start, source[1].start
    image = mirrored(pixels, origin, (read[0], read[1]), tiling.shape)
    scores = predictor.scores(image, limits).cpu().numpy()
    y, x = window.y.shift(-starts[0]), window.x.shift(-starts[1])
    return scores[:, y.slice, x.slice]


def _pooled(found: Sequence[Verification]) -> Verification:
    return Verification(
        windows=len(found),
        pixels=sum(f.pixels for f in found),
        differing=sum(f.differing for f in found),
        ties=sum(f.ties for f in found),
        score_difference=max(f.score_difference for f in found),
        tolerance=max(f.tolerance for f in found),
    )
