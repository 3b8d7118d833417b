"""A window of a label, computed again in one piece, beside what is stored and what tiles give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bigunet.geometry import Block, Span, Tiling, legal_output, mirror_span, pooling_grid
from bigunet.images.intensity import Limits
from bigunet.images.open import Plane
from bigunet.models.predictor import Predictor
from bigunet.tiles import mirrored, predict_block

__all__ = ["Comparison", "Objects", "Verification", "pooled"]

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


def pooled(found: Sequence[Verification]) -> Verification:
    """Return what came out of all windows together."""
    return Verification(
        windows=len(found),
        pixels=sum(f.pixels for f in found),
        differing=sum(f.differing for f in found),
        ties=sum(f.ties for f in found),
        score_difference=max(f.score_difference for f in found),
        tolerance=max(f.tolerance for f in found),
    )


@dataclass(frozen=True, kw_only=True)
class Objects:
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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How windows of a label are computed again; the same for all of them."""

    tiling: Tiling
    by_tiles: Predictor
    """Computes tiles as the run did."""
    by_one: Predictor
    """Computes the one piece."""
    limits: Limits | None
    objects: Objects | None
    """None where the label holds classes."""

    def compare(
        self,
        window: Block,
        plane: Plane,
        stored: np.ndarray,
        inside: npt.NDArray[np.bool_] | None,
    ) -> Verification:
        """Compare stored classes and tiled scores with those of one piece.

        Parameters
        ----------
        stored : (y, x) array
            The label in the window: classes, or ids of objects.
        inside : (y, x) bool array, optional
            The mask in the window.
        """
        tiled = self._in_tiles(window, plane)
        whole = self._in_one_piece(window, plane, self.by_one)
        tolerance = self._allowed(window, plane, whole)
        classes = whole.argmax(0)
        if inside is not None:
            classes = np.where(inside, classes, 0)
        differs = stored != classes if self.objects is None else self.objects.wrong(stored, classes)
        ranked = np.sort(whole, axis=0)
        tie = (
            ranked[-1] - ranked[-2] <= 2 * tolerance if len(ranked) > 1 else np.zeros_like(differs)
        )
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

    def _allowed(self, window: Block, plane: Plane, whole: np.ndarray) -> float:
        """Return how far scores may differ, which goes with the logits that they were made of."""
        factor = 1.0
        if self.by_one.augment != "none":
            # A log-probability is a logit less a mean of logits: what each may be off adds up.
            factor, plain = 2.0, replace(self.by_one, augment="none")
            whole = self._in_one_piece(window, plane, plain)
        return factor * _TOLERANCE * max(1.0, float(np.abs(whole).max()))

    def _in_tiles(self, window: Block, plane: Plane) -> np.ndarray:
        """Return the scores (K, y, x) of a window as the run computed them."""
        y, x = self.tiling.source(window)
        done = predict_block(
            plane.read(y.slice, x.slice),
            (y.start, x.start),
            window,
            tiling=self.tiling,
            predictor=self.by_tiles,
            limits=self.limits,
            kinds=("scores",),
        )
        return done["scores"]

    def _in_one_piece(self, window: Block, plane: Plane, predictor: Predictor) -> np.ndarray:
        """Return the same scores from one input that starts at the window."""
        tiling = self.tiling
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
        scores = predictor.scores(image, self.limits).cpu().numpy()
        y, x = window.y.shift(-starts[0]), window.x.shift(-starts[1])
        return scores[:, y.slice, x.slice]
