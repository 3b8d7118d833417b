"""What an evaluation found, as lines for people and plain values for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigunet.metrics.boundaries import Best, Sweep
from bigunet.metrics.kinds import Kind
from bigunet.metrics.objects import IOU_THRESHOLDS, ObjectCounts
from bigunet.metrics.partitions import Partition
from bigunet.metrics.pixels import ClassCounts

__all__ = ["Evaluation", "Scores"]

Row = Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What was measured on one image, or on all of them together."""

    name: str
    pixels: int
    objects: ObjectCounts | None = None
    """Of instances."""
    parts: Partition | None = None
    """Of instances: agreement on the true foreground, without thinning."""
    classes: tuple[ClassCounts, ...] = ()
    """Of class maps."""
    boundaries: Sweep | None = None
    """Of probabilities, and of class maps with one class beside the background."""

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as plain values; None where there was nothing to measure."""
        facts: dict[str, Any] = {"name": self.name, "pixels": self.pixels}
        if self.objects is not None:
            facts["objects"] = _object_facts(self.objects)
        if self.parts is not None:
            facts["partition"] = _partition_facts(self.parts)
        if self.classes:
            facts["classes"] = [_class_facts(one) for one in self.classes]
        if self.boundaries is not None:
            facts["boundaries"] = _boundary_facts(self.boundaries)
        return facts


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of each image, and of all of them pooled: counts are added, then divided."""

    kind: Kind
    images: tuple[Scores, ...]
    pooled: Scores
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return a table with a line for each image and one for all."""
        rows = [*self.images, self.pooled] if len(self.images) > 1 else [self.pooled]
        tables = [
            _table([_OBJECTS, *(_object_row(one) for one in rows)]) if self.pooled.objects else [],
            _ap_table(self.pooled.objects) if self.pooled.objects else [],
            _table([_CLASSES, *(row for one in rows for row in _class_rows(one))])
            if self.pooled.classes
            else [],
            _table([_BOUNDARIES, *(_boundary_row(one) for one in rows)])
            if self.pooled.boundaries
            else [],
        ]
        lines = [line for table in tables if table for line in ("", *table)]
        return [*lines[1:], *([""] if self.notes else []), *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as plain values; None where there was nothing to measure."""
        return {
            "kind": self.kind,
            "pooled": self.pooled.as_dict(),
            "images": [one.as_dict() for one in self.images],
            "notes": list(self.notes),
        }


_OBJECTS = (
    *("image", "true", "found", "AP@0.5", "AP@0.75", "mean AP", "F1@0.5", "PQ", "SEG"),
    *("Rand err", "merged"),
)
_CLASSES = ("image", "class", "true px", "found px", "IoU", "Dice")
_BOUNDARIES = ("image", "Rand err", "warping err", "pixel err", "V_Rand", "V_Info", "Rand err at")


def _object_row(scores: Scores) -> Row:
    counts, parts = scores.objects or ObjectCounts(), scores.parts or Partition()
    ap = dict(zip(IOU_THRESHOLDS, counts.ap, strict=True))
    shares = (ap[0.5], ap[0.75], counts.mean_ap, counts.f1[0], counts.panoptic_quality, counts.seg)
    merged = f"{counts.merged} of {counts.touching} pairs"
    numbers = [_text(share) for share in (*shares, 1 - parts.rand_f_score)]
    return scores.name, str(counts.true), str(counts.predicted), *numbers, merged


def _ap_table(counts: ObjectCounts) -> list[str]:
    heads = ["IoU", *(f"{t:g}" for t in IOU_THRESHOLDS)]
    return _table([heads, ["AP", *map(_text, counts.ap)], ["F1", *map(_text, counts.f1)]])


def _class_rows(scores: Scores) -> Iterable[Row]:
    for one in scores.classes:
        sizes = str(one.value), str(one.true), str(one.predicted)
        yield scores.name, *sizes, _text(one.iou), _text(one.dice)


def _boundary_row(scores: Scores) -> Row:
    sweep = scores.boundaries
    if sweep is None:
        return scores.name, *["-"] * (len(_BOUNDARIES) - 1)
    warping = sweep.warping_error.value
    return (
        scores.name,
        _text(sweep.rand_error.value),
        "-" if math.isnan(warping) else f"{warping:.6f}",
        *(_text(best.value) for best in (sweep.pixel_error, sweep.v_rand, sweep.v_info)),
        f"{sweep.fixed_threshold:g}: {_text(sweep.fixed.rand_error)}",
    )


def _object_facts(counts: ObjectCounts) -> dict[str, Any]:
    named = [f"{threshold:g}" for threshold in IOU_THRESHOLDS]
    return {
        "true": counts.true,
        "predicted": counts.predicted,
        "ap": dict(zip(named, map(_known, counts.ap), strict=True)),
        "f1": dict(zip(named, map(_known, counts.f1), strict=True)),
        "mean_ap": _known(counts.mean_ap),
        "panoptic_quality": _known(counts.panoptic_quality),
        "seg": _known(counts.seg),
        "touching_pairs": counts.touching,
        "merged_pairs": counts.merged,
    }


def _partition_facts(parts: Partition) -> dict[str, Any]:
    return {
        "rand_error": _known(1 - parts.rand_f_score),
        "rand_precision": _known(parts.rand_precision),
        "rand_recall": _known(parts.rand_recall),
        "v_rand": _known(parts.v_rand),
        "v_info": _known(parts.v_info),
    }


def _class_facts(counts: ClassCounts) -> dict[str, Any]:
    sizes = {"value": counts.value, "true": counts.true, "predicted": counts.predicted}
    return {**sizes, "iou": counts.iou, "dice": counts.dice}


def _boundary_facts(sweep: Sweep) -> dict[str, Any]:
    measures: Mapping[str, Best] = {
        "rand_error": sweep.rand_error,
        "warping_error": sweep.warping_error,
        "pixel_error": sweep.pixel_error,
        "v_rand_thinned": sweep.v_rand,
        "v_info_thinned": sweep.v_info,
    }
    best = {
        name: {"value": _known(one.value), "threshold": _known(one.threshold)}
        for name, one in measures.items()
    }
    fixed = sweep.fixed
    at_fixed = {
        "threshold": sweep.fixed_threshold,
        "rand_error": _known(fixed.rand_error),
        "pixel_error": _known(fixed.pixel_error),
        "v_rand_thinned": _known(fixed.thinned.v_rand),
        "v_info_thinned": _known(fixed.thinned.v_info),
        "warping_error": _known(fixed.warping.error),
        "warping_mismatches": fixed.warping.mismatches,
        "warping_mergers": fixed.warping.mergers,
        "warping_splits": fixed.warping.splits,
    }
    return {**best, "at_threshold": at_fixed}


def _known(value: float) -> float | None:
    """Return a number that JSON knows."""
    return None if math.isnan(value) else value


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _table(rows: Sequence[Row]) -> list[str]:
    """Align columns: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
