"""Windows lie inside, apart and within the budget, whatever the shape."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.images.windows import (
    TOGETHER,
    WINDOW,
    WINDOWS,
    bounding_box,
    read_together,
    rectangle,
    sample_windows,
)

shapes = st.tuples(
    st.sampled_from([1, 3]),
    *[st.one_of(st.integers(1, 600), st.integers(1, 200_000))] * 2,
)


@given(st.one_of(shapes, st.tuples(st.integers(1, 500), shapes).map(lambda s: (s[0], *s[1]))))
def test_windows_lie_inside_apart_and_within_the_budget(shape):
    windows = sample_windows(shape)
    assert 1 <= len(windows) <= WINDOWS
    assert len({str(w) for w in windows}) == len(windows)
    for *plane, channels, y, x in windows:
        assert channels == slice(None)
        assert all(0 <= p < shape[0] for p in plane)
        for span, size in ((y, shape[-2]), (x, shape[-1])):
            assert span.start % WINDOW == 0
            assert span.start < span.stop == min(span.start + WINDOW, size)


@given(shapes, st.tuples(st.integers(1, 2000), st.integers(1, 2000)))
def test_what_is_read_together_is_small_and_every_window_once(shape, chunks):
    windows = sample_windows(shape)
    groups = read_together(windows, chunks)
    assert sorted(map(str, windows)) == sorted(str(w) for group in groups for w in group)
    for group in groups:
        box = rectangle(bounding_box(group))
        for span in box:
            # A window that begins in a chunk may go on in the next.
            assert span.stop - span.start < TOGETHER + WINDOW
        for axis, span in enumerate(box):
            assert span.start == min(rectangle(w)[axis].start for w in group)


@given(st.integers(1, 5500), st.integers(1, 5500))
def test_an_image_within_the_budget_is_covered_whole(height, width):
    cells = -(-height // WINDOW) * -(-width // WINDOW)
    area = sum(
        (y.stop - y.start) * (x.stop - x.start) for _, y, x in sample_windows((1, height, width))
    )
    assert area == height * width or cells > WINDOWS * 0.9


@pytest.mark.parametrize("shape", [(1, 100_000, 80_000), (1, 300, 200_000), (40, 1, 9000, 9000)])
def test_windows_of_large_images_are_spread_evenly(shape):
    windows = sample_windows(shape)
    assert len(windows) > WINDOWS * 0.85
    for axis in (-2, -1):
        starts = sorted({w[axis].start for w in windows})
        steps = {b - a for a, b in pairwise(starts)}
        assert not steps or max(steps) - min(steps) <= WINDOW
    if len(shape) == 4:
        assert len({w[0] for w in windows}) == 16
