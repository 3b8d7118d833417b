"""Images of nuclei and their limits, for the tests of intensity."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from bigunet.images.intensity import (
    IntensityRule,
    measure_limits,
)

PERCENTILE = IntensityRule(kind="percentile", low=1, high=99.8)


def limits_of(array, rule=PERCENTILE):
    return measure_limits(array, rule).compute(scheduler="sync")


def oracle_percentiles(values, qs):
    """Mid-ranks the dumb way, from the full table of values and counts."""
    different, counts = np.unique(values, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return [np.interp(q / 100 * values.size, middle, different.astype(float)) for q in qs]


def nuclei(side=512, seed=0):
    """Blurred ellipses of varied size and brightness on an uneven, noisy background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    image = 300 + 60 * np.sin(y / 190) * np.cos(x / 230)
    for _ in range(side * side // 2600):
        cy, cx = rng.uniform(0, side, 2)
        ry, rx = rng.uniform(6, 13, 2)
        inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        image[inside] += rng.uniform(500, 2000)
    image = ndimage.gaussian_filter(image, 1.3)
    return (image + rng.normal(0, 12, image.shape)).clip(1).astype(np.uint16)
