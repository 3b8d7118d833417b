"""Small label images that tests draw from."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def label_pairs(draw: st.DrawFn, most: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Draw a truth and a prediction of one shape, with ids up to `most`."""
    shape = draw(shapes)
    ids = st.integers(0, most)
    dtype = draw(st.sampled_from([np.uint8, np.int32, np.uint64]))
    both = [draw(arrays.arrays(dtype, shape, elements=ids)) for _ in range(2)]
    return both[0], both[1]


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw two masks of one shape."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    both = [draw(arrays.arrays(bool, shape, elements=st.booleans())) for _ in range(2)]
    return both[0], both[1]
