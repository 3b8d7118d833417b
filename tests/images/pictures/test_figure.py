"""Panels, legend and scale bar fit the picture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigunet.images.open import open_image
from bigunet.images.overlay import write_preview
from bigunet.images.pictures import figure
from bigunet.images.pictures.classes import label_classes
from tests.images.labelled_images import opened, write_image, write_labels


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), min_size=2, max_size=3),
    most=st.integers(200, 2000),
    legend=st.integers(0, 4),
)
def test_panels_fit_and_do_not_overlap(
    sizes: list[tuple[int, int]], most: int, legend: int
) -> None:
    high = most - figure.LINE * legend
    places, (width, height) = figure._layout(sizes, most, high)
    assert width <= most
    assert height <= max(high, len(sizes) * (figure.LINE + figure.GAP + 1) + figure.GAP)
    canvas = np.zeros((height, width), int)
    for x, y, w, h in places:
        assert min(x, y, w, h) >= 1
        assert (x + w <= width) & (y + h <= height)
        canvas[y : y + h, x : x + w] += 1
    assert canvas.max() == 1


def test_many_classes_end_in_a_number(tmp_path: Path) -> None:
    image = np.zeros((60, 60), np.uint8)
    path = write_image(tmp_path / "i.zarr", [image], "yx", [(1, 1)])
    colors = [{"label-value": k, "rgba": [k, 9, 9, 255]} for k in range(1, 100)]
    stated = {"version": "0.5", "colors": colors}
    write_labels(path, "l", [image], "yx", [(1, 1)], **{"image-label": stated})
    classes = label_classes(open_image(path / "labels/l"))
    legend, lines = figure._legend(classes, 300, lambda text: 8 * len(text))
    assert legend[-1][-1] == "and 87 more"
    assert max(line for _, line, _, _ in legend) + 1 == lines
    assert max(opened(write_preview(path, "l", tmp_path / "o.png", max_side=300)).shape) <= 300


@pytest.mark.parametrize("most", [0.0012, 0.7, 1, 49.9, 50, 1234.5])
def test_scale_bars_have_round_lengths(most: float) -> None:
    length = figure._round_length(most)
    assert length is not None
    assert most / 2.5 < length <= most
    digit = length / 10 ** math.floor(math.log10(length) + 1e-9)
    assert round(digit, 6) in {1, 2, 5}
    assert figure._round_length(0) is None
