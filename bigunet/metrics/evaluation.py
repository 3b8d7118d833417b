"""Evaluate predictions against truths: open, choose how to read them, count, add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import islice
from operator import add
from typing import Literal, TypeAlias

import numpy as np

from bigunet.errors import InputError
from bigunet.metrics.kinds import KINDS, Kind, choose_kind, gather_evidence
from bigunet.metrics.report import Evaluation
from bigunet.metrics.scoring import LARGEST_PLANE, Counted, Reading, Scorer
from bigunet.metrics.sources import Given, Match, Pair, match_names, open_pairs

__all__ = ["evaluate"]

Progress: TypeAlias = Callable[[int, int], None]

LOOKED_AT = 20  # planes of a folder that decide how all are read


def evaluate(
    prediction: Given,
    truth: Given,
    *,
    kind: Kind | Literal["auto"] = "auto",
    connected: bool | None = None,
    threshold: float = 0.5,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a prediction against a truth by the field's measures.

    Instances and classes are read window by window, so that their size does not matter;
    what needs components (probabilities, masks, `connected`) holds a plane of at most
    8192 × 8192 pixels.

    Parameters
    ----------
    prediction, truth : (Y, X) array or path
        Two arrays, image files, folders of files paired by name, or OME-Zarr labels
        (level 0; each plane is an image of its own).
    kind : {"auto", "instances", "classes", "probabilities"}
        How values are read. Probabilities are floats of 0 to 1, or integers from 0 to the
        largest of their type, of being inside an object; their truth is a mask.
    connected : bool, optional
        Whether the objects of the prediction are its 4-connected regions and not its
        ids. By default where it has one value beside 0.
    threshold : float
        At which probabilities are also scored as they are, without choosing the best.
    progress : callable, optional
        Called with the pixels that are done and those of all planes; not for folders.

    Returns
    -------
    Evaluation

    Raises
    ------
    NotFoundError
        If there is nothing at a path.
    InputError
        If something cannot be read, does not fit, or may be read in two ways.

    Examples
    --------
    >>> truth = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    >>> scores = evaluate(truth > 0, truth, kind="instances").pooled.objects
    >>> scores.touching, scores.merged, scores.ap[0]
    (1, 1, 0.5)
    """
    if kind not in ("auto", *KINDS):
        raise InputError(f"{kind!r} is no kind of prediction: auto, {', '.join(KINDS)} are")
    if not 0 <= threshold < 1:
        raise InputError(f"{threshold} is no threshold of probabilities: 0 to below 1 are")
    matches, notes = match_names(_array(prediction), _array(truth))
    reading, reading_notes = _choose(matches, kind, connected)
    report = _Report(progress, open_pairs(matches[0]) if len(matches) == 1 else ())
    scorer = Scorer(reading=reading, threshold=threshold, report=report.add)
    counted = [scorer.count(pair) for pair in _all_pairs(matches)]
    return Evaluation(
        kind=reading.kind,
        images=tuple(one.scores(reading) for one in counted),
        pooled=reduce(add, counted).scores(reading, name="all"),
        notes=(*notes, *reading_notes, *_size_notes(reading, counted)),
    )


def _array(given: Given) -> Given:
    """Return an array with values that can be ids or probabilities; paths pass."""
    if not isinstance(given, np.ndarray):
        return given
    return given.astype(np.uint8) if given.dtype == bool else given


def _choose(
    matches: Sequence[Match], kind: Kind | Literal["auto"], connected: bool | None
) -> tuple[Reading, tuple[str, ...]]:
    pairs = list(islice(_all_pairs(matches), LOOKED_AT))
    if kind == "probabilities" or (kind == "auto" and pairs[0].probable):
        return Reading(kind="probabilities", masks=False, connected=False), ()
    if pairs[0].probable:
        raise InputError(f"{pairs[0].name}: the prediction is probabilities, not {kind}")
    truth = gather_evidence(pair.truth for pair in pairs)
    found = gather_evidence(pair.prediction for pair in pairs)
    chosen = choose_kind(truth, matches[0].name) if kind == "auto" else kind
    if kind == "auto" and chosen == "classes" and found.reading == "instances":
        raise InputError(
            f"{matches[0].name}: the truth reads as classes and the prediction as objects; say "
            "--kind instances or --kind classes"
        )
    if chosen == "classes":
        masks = truth.is_binary and found.is_binary and len(truth.values | found.values) > 1
        return Reading(kind=chosen, masks=masks, connected=False), ()
    joined = found.is_binary and not truth.is_binary if connected is None else connected
    note = "the objects of the prediction are its 4-connected regions"
    return Reading(kind=chosen, masks=False, connected=joined), (note,) if joined else ()


def _size_notes(reading: Reading, counted: Sequence[Counted]) -> tuple[str, ...]:
    """Say for which images there were no measures of boundaries because of their size."""
    large = [one.name for one in counted if one.pixels > LARGEST_PLANE]
    if reading.kind != "classes" or not large:
        return ()
    what = "Rand, warping and pixel error need planes of at most 8192 × 8192 pixels"
    return (f"{what}: left out for {', '.join(large[:3])}{' …' if len(large) > 3 else ''}",)


def _all_pairs(matches: Sequence[Match]) -> Iterator[Pair]:
    for match in matches:
        yield from open_pairs(match)


class _Report:
    """Adds up the pixels that are done; silent where all of them are not known before."""

    def __init__(self, progress: Progress | None, pairs: Sequence[Pair]) -> None:
        self._progress = progress
        self._total = sum(pair.shape[0] * pair.shape[1] for pair in pairs)
        self._done = 0

    def add(self, pixels: int) -> None:
        self._done += pixels
        if self._progress is not None and self._total:
            self._progress(self._done, self._total)
