"""Colours and names that the metadata of labels gives to their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bigunet.images.groups import mapping, read_group
from bigunet.images.image import Image
from bigunet.images.pictures.colors import Color, distinct_colors

__all__ = ["LabelClass", "class_colors", "label_classes"]

Rgba: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class LabelClass:
    """A label value that has a colour or a name in the metadata."""

    value: int
    name: str
    rgba: Rgba | None

    @property
    def color(self) -> Color:
        """Of its own where the metadata gives it none."""
        if self.rgba is not None:
            return self.rgba[:3]
        r, g, b = distinct_colors(np.array([self.value]))[0].astype(int).tolist()
        return r, g, b


def label_classes(labels: Image) -> list[LabelClass]:
    """Read colours and names of label values, as far as the metadata is usable."""
    group = read_group(labels.path)
    stated = mapping(group.ome.get("image-label")) if group else {}
    colors = {k: _rgba(entry.get("rgba")) for k, entry in _entries(stated.get("colors"))}
    names = {k: _entry_name(entry) for k, entry in _entries(stated.get("properties"))}
    values = sorted((colors.keys() | {k for k, name in names.items() if name}) - {0})
    return [LabelClass(value=k, name=names.get(k) or str(k), rgba=colors.get(k)) for k in values]


def class_colors(classes: Sequence[LabelClass]) -> dict[int, Rgba]:
    """Colours of the label values that the metadata gives one."""
    return {c.value: c.rgba for c in classes if c.rgba is not None}


def _entries(listed: Any) -> list[tuple[int, Mapping[str, Any]]]:
    entries = [e for e in listed if isinstance(e, Mapping)] if isinstance(listed, list) else []
    values = ((entry.get("label-value"), entry) for entry in entries)
    return [(value, entry) for value, entry in values if isinstance(value, int)]


def _entry_name(entry: Mapping[str, Any]) -> str:
    found = (entry.get(key) for key in ("name", "class", "label", "title"))
    name = next((value for value in found if isinstance(value, str)), "")
    return "".join(c for c in name if c.isprintable())[:40]


def _rgba(value: Any) -> Rgba | None:
    if not isinstance(value, list) or len(value) not in (3, 4):
        return None
    if not all(isinstance(v, int | float) and 0 <= v <= 255 for v in value):
        return None
    r, g, b, a = (*map(int, value), 255)[:4]
    return r, g, b, a
