"""The columns of the table, and the row of each object: pixels of level 0, and micrometres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from bigunet.images.classification import Classification
from bigunet.images.frames import LabelFrame
from bigunet.measurement.properties import Column, Kind, Property, Value
from bigunet.measurement.visitor import Measured

__all__ = ["Rows"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Makes rows of what was measured in pixels of the label.

    Pixel p of a level covers p to p + 1, so a centroid c of a level that is s times coarser
    is (c + ½)·s − ½ in pixels of level 0, and corners of a box are multiplied by s.
    """

    axes: str
    """Axes of the label other than y and x."""
    frame: LabelFrame
    shape: tuple[int, int]
    """(Y, X) of level 0."""
    micrometres: tuple[float, float] | None
    """(y, x) of a pixel of level 0; None to leave them out."""
    classification: Classification
    probability: bool
    """Whether the class probability is known."""
    properties: tuple[Property, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of the table."""
        return (
            Column(name="id", kind="unsigned"),
            *([Column(name="class", kind="integer")] if self._classified else []),
            *([Column(name="class_name", kind="text")] if self._classified else []),
            *([Column(name="cut", kind="integer")] if self._masked else []),
            *(Column(name=axis, kind="integer") for axis in self.axes),
            Column(name="area", kind=self._kind),
            *([Column(name="area_um2", kind="number")] if self.micrometres else []),
            *self._pairs("centroid", ("y", "x"), "number"),
            *self._pairs("bbox", ("top", "left", "bottom", "right"), self._kind),
            *([Column(name="probability", kind="number")] if self.probability else []),
            *chain.from_iterable(one.columns for one in self.properties),
        )

    def row(self, found: Measured) -> list[Value]:
        """Return the values of all columns."""
        (by_y, by_x), um = self.frame.scale, self.micrometres
        area = self._number(found.area * by_y * by_x)
        centroid = [
            (c + 0.5) * by - 0.5 for c, by in zip(found.centroid, (by_y, by_x), strict=True)
        ]
        return [
            found.id,
            *(self._class(found.id) if self._classified else []),
            *([self._cut(found.id)] if self._masked else []),
            *self.frame.plane(found.plane),
            area,
            *([area * um[0] * um[1]] if um else []),
            *self._with_micrometres(centroid),
            *self._with_micrometres([self._number(edge) for edge in self._box(found)]),
            *([found.probability] if self.probability else []),
            *found.values,
        ]

    @property
    def _classified(self) -> bool:
        return self.classification.numbers is not None or bool(self.classification.classes)

    @property
    def _masked(self) -> bool:
        return self.classification.cut is not None

    def _cut(self, number: int) -> Value:
        cut = self.classification.cut
        return int(cut[number]) if cut is not None and number < cut.size else None

    @property
    def _kind(self) -> Kind:
        """Of areas and boxes: whole numbers where scales are whole."""
        return "integer" if all(by == int(by) for by in self.frame.scale) else "number"

    def _number(self, value: float) -> int | float:
        return int(value) if self._kind == "integer" else value

    def _pairs(self, name: str, parts: tuple[str, ...], kind: Kind) -> Iterator[Column]:
        yield from (Column(name=f"{name}_{part}", kind=kind) for part in parts)
        if self.micrometres:
            yield from (Column(name=f"{name}_{part}_um", kind="number") for part in parts)

    def _with_micrometres(self, values: list[float]) -> list[float]:
        """Return values of y and x in turns, and the same in micrometres."""
        um = self.micrometres
        return values + ([value * um[i % 2] for i, value in enumerate(values)] if um else [])

    def _box(self, found: Measured) -> list[float]:
        (by_y, by_x), (height, width) = self.frame.scale, self.shape
        # The last pixels of a coarser level may reach beyond level 0.
        bottom, right = min(found.high[0] * by_y, height), min(found.high[1] * by_x, width)
        return [found.low[0] * by_y, found.low[1] * by_x, bottom, right]

    def _class(self, number: int) -> list[Value]:
        known = self.classification.of(number)
        return [self.classification.number(number), known.name if known else None]
