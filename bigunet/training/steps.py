"""From an annotated image to one step's input, target and weights.

A step is a function of (seed, epoch, number of the step): a run that was stopped
goes on with the very tiles that it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from bigunet.images.intensity import IntensityRule, measure_limits, normalise
from bigunet.training.augment import draw_tile
from bigunet.training.examples import Example
from bigunet.training.settings import Training
from bigunet.training.targets import IGNORE, classes_from_instances, separate
from bigunet.training.weight_map import balanced_weights, border_weights, class_frequencies

__all__ = ["Prepared", "PreparedExamples", "Step", "Steps", "make_target", "set_weights"]

Array: TypeAlias = npt.NDArray[Any]

_DRAWN_AHEAD = 4
_BYTES_KEPT = 2 * 10**9


class Prepared(NamedTuple):
    """An example as training sees it."""

    image: npt.NDArray[np.float32]
    """(C, Y, X), normalised."""
    instances: npt.NDArray[np.int32]
    """(Y, X)."""
    class_of: npt.NDArray[np.uint8]
    """(N + 1,), class of each id."""
    valid: npt.NDArray[np.bool_]
    """(Y, X)."""


class Step(NamedTuple):
    """What one step of training learns from."""

    image: npt.NDArray[np.float32]
    """(C, size + 2 margin, size + 2 margin)."""
    target: npt.NDArray[np.int64]
    """(size, size), true classes."""
    weights: npt.NDArray[np.float32]
    """(size, size), 0 where nothing is known."""


class PreparedExamples:
    """Examples as training sees them, as many as fit kept from epoch to epoch."""

    def __init__(self, examples: Sequence[Example], rule: IntensityRule) -> None:
        largest = max((_prepared_bytes(example) for example in examples), default=1)
        self.examples = tuple(examples)
        self.get = lru_cache(max(1, _BYTES_KEPT // largest))(
            lambda index: prepare(self.examples[index], rule)
        )

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Prepared]:
        return (self.get(index) for index in range(len(self)))


def _prepared_bytes(example: Example) -> int:
    """Return the bytes of float32 pixels, int32 ids and what is valid."""
    channels, height, width = example.shape
    return (4 * channels + 5) * height * width


def prepare(example: Example, rule: IntensityRule) -> Prepared:
    """Read an example and normalise it by its own limits, as segmentation does."""
    pixels, annotation = example.image(), example.annotation()
    limits = measure_limits(pixels, rule).compute(scheduler="sync")
    return Prepared(
        normalise(pixels, limits), annotation.instances, annotation.classes, ~annotation.ignore
    )


def make_target(
    instances: npt.NDArray[np.int32],
    class_of: npt.NDArray[np.uint8],
    valid: npt.NDArray[np.bool_],
    gap: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Return ids with a gap between touching objects of one class, and the class map."""
    apart = np.zeros_like(instances)
    for k in np.unique(class_of[class_of > 0]):
        of_class = np.where(class_of[instances] == k, instances, 0)
        apart += separate(of_class, gap) if gap else of_class
    return apart, classes_from_instances(apart, ~valid, class_of=class_of)


def set_weights(
    examples: Sequence[Example], classes: int, settings: Training
) -> npt.NDArray[np.float64]:
    """Return w_c of each class over the whole training set."""

    def targets() -> Iterator[Array]:
        for example in examples:
            found = example.annotation()
            yield make_target(found.instances, found.classes, ~found.ignore, settings.gap)[1]

    return balanced_weights(class_frequencies(targets(), classes))


@dataclass(frozen=True)
class Steps:
    """Draws the steps of an epoch, some ahead of the network."""

    examples: PreparedExamples
    class_weights: npt.NDArray[np.float64]
    settings: Training

    def epoch(self, epoch: int) -> Iterator[Step]:
        """Yield the steps of an epoch in order."""
        order = self._order(epoch)
        with ThreadPoolExecutor(1) as pool:
            waiting = [
                pool.submit(self._draw, epoch, n, i) for n, i in enumerate(order[:_DRAWN_AHEAD])
            ]
            for number, index in enumerate(order[_DRAWN_AHEAD:], _DRAWN_AHEAD):
                yield waiting.pop(0).result()
                waiting.append(pool.submit(self._draw, epoch, number, index))
            for future in waiting:
                yield future.result()

    def _order(self, epoch: int) -> list[int]:
        """Return which example each step sees: all in turn, shuffled anew each round."""
        rng = np.random.default_rng([self.settings.seed, epoch])
        rounds = -(-self.settings.steps // len(self.examples))
        order = np.concatenate([rng.permutation(len(self.examples)) for _ in range(rounds)])
        return [int(i) for i in order[: self.settings.steps]]

    def _draw(self, epoch: int, number: int, index: int) -> Step:
        s, example = self.settings, self.examples.get(index)
        rng = np.random.default_rng([s.seed, epoch, number])
        tile = draw_tile(
            example.image, example.instances, example.valid, rng, s.output, s.margin, s.augmentation
        )
        apart, classes = make_target(tile.ids, example.class_of, tile.valid, s.gap)
        known = classes != IGNORE
        target = np.where(known, classes, 0).astype(np.int64)
        weights = self.class_weights[target] + border_weights(apart, s.w0, s.sigma)
        return Step(tile.image, target, np.where(known, weights, 0).astype(np.float32))
