"""Mirrored axes, against NumPy's padding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bigunet.geometry import Span, mirror_indices, mirror_span


@given(st.integers(1, 40), st.integers(0, 130), st.integers(0, 130))
def test_mirror_is_numpys_symmetric(size: int, before: int, after: int) -> None:
    padded = np.pad(np.arange(size), (before, after), mode="symmetric")
    assert mirror_indices(-before, size + after, size) == padded.tolist()


@given(st.integers(1, 40), st.integers(-130, 39), st.integers(1, 170))
def test_a_mirrored_read_finds_its_pixels_in_the_span_of_them_all(
    size: int, start: int, stop: int
) -> None:
    start = min(start, size - 1)
    read = Span(start, max(stop, start + 1))
    pixels = mirror_indices(read.start, read.stop, size)
    assert mirror_span(read, size) == Span(min(pixels), max(pixels) + 1)
