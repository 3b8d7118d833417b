"""The pixels of the sample slide: no seams, and a truth that is true."""

from __future__ import annotations

import itertools
import math
import zlib

import numpy as np
import pytest
from scipy import ndimage

from bigunet.images import sample as sample_module
from bigunet.images.synthetic.microscope import draw
from bigunet.images.synthetic.nuclei import Slide


def whole(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    slide = Slide(height=height, width=width, seed=seed)
    return draw(slide, slice(0, height), slice(0, width))


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, np.ndarray]:
    return whole(1500, 1400, seed=5)


def test_any_window_is_that_part_of_the_slide(crowd: tuple[np.ndarray, ...]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        y, x = (int(rng.integers(0, n - 200)) for n in crowd[0].shape)
        h, w = (int(n) for n in rng.integers(1, 200, 2))
        window = slice(y, y + h), slice(x, x + w)
        for part, all_of_it in zip(
            draw(Slide(height=1500, width=1400, seed=5), *window), crowd, strict=True
        ):
            np.testing.assert_array_equal(part, all_of_it[window])


def test_seeds_and_sizes_give_different_slides() -> None:
    images = [whole(200, 200, seed)[0] for seed in (0, 1, 2**64 - 1)]
    for a, b in itertools.combinations(images, 2):
        assert (a != b).mean() > 0.9


def test_the_recipe_has_not_changed() -> None:
    # Whoever changes this on purpose counts sample.RECIPE up: old slides cannot be made again.
    image, truth = whole(300, 200, seed=7)
    assert (sample_module.RECIPE, zlib.crc32(truth.astype("<u4").tobytes())) == (1, 1210925412)
    assert image.mean() == pytest.approx(1341.415, abs=0.01)


def test_truth_is_one_piece_per_nucleus(crowd: tuple[np.ndarray, ...]) -> None:
    truth = crowd[1]
    boxes = ndimage.find_objects(truth.astype(np.int32))
    areas = []
    for label, box in enumerate(boxes, start=1):
        if box is None:
            continue
        mask = truth[box] == label
        assert ndimage.label(mask)[1] == 1, f"nucleus {label} is in pieces"
        at_border = box[0].start == 0 or box[0].stop == 1500 or box[1].start == 0
        if not (at_border or box[1].stop == 1400):
            areas.append(mask.sum())
    diameters = 2 * np.sqrt(np.array(areas) / math.pi)
    assert len(areas) > 500
    assert 7 < np.percentile(diameters, 1) < 14
    assert 14 < np.median(diameters) < 24
    assert 22 < diameters.max() < 40


def test_there_are_crowds_touching_pairs_and_empty_glass(crowd: tuple[np.ndarray, ...]) -> None:
    image, truth = crowd
    right, left = truth[:, 1:], truth[:, :-1]
    touching = {
        tuple(pair)
        for pair in np.unique(
            np.stack([left, right], -1)[(left != right) & (left * right > 0)], axis=0
        )
    }
    assert len(touching) > 100
    filled = (truth > 0)[:1408, :1344].reshape(11, 128, 21, 64).mean((1, 3))
    assert filled.max() > 0.35
    assert (filled < 0.01).mean() > 0.1
    background = ndimage.uniform_filter(np.where(truth == 0, image, 0).astype(float), 9)
    far = ndimage.minimum_filter(truth == 0, 41)
    assert np.percentile(background[far], 99) > 1.3 * np.percentile(background[far], 1)


@pytest.mark.parametrize("size", [200, 512, 1024, (3000, 700)])
@pytest.mark.parametrize("seed", range(4))
def test_slides_of_any_size_have_nuclei_and_glass(size: int | tuple[int, int], seed: int) -> None:
    height, width = size if isinstance(size, tuple) else (size, size)
    image, truth = whole(height, width, seed)
    assert 0.02 < (truth > 0).mean() < 0.6
    assert image[truth > 0].mean() > 2 * image[truth == 0].mean()
    assert image.max() < 65535
