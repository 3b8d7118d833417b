"""Where a label lies on its image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bigunet.errors import InputError
from bigunet.images.frames import label_frame
from bigunet.images.image import Image
from bigunet.images.open import open_image, open_labels
from tests.exports.made_labels import write_labelled


def opened(path: Path) -> tuple[Image, Image]:
    image = open_image(path)
    return image, open_labels(image, "cells")


@pytest.mark.parametrize("level", [0, 1, 3])
def test_the_level_of_the_same_shape_is_found(tmp_path: Path, level: int) -> None:
    shape = (77, 50)
    labels = np.zeros([-(-n >> level) for n in shape], np.uint8)
    # 0.325 and its multiples are no binary fractions; the factors are exact all the same.
    path = write_labelled(tmp_path / "a.zarr", labels, level=level, shape=shape, scale=0.325)
    frame = label_frame(*opened(path))
    assert (frame.level, frame.scale) == (level, (2**level, 2**level))


def test_planes_of_a_pyramid_in_z(tmp_path: Path) -> None:
    image, labels = opened(
        write_labelled(tmp_path / "a.zarr", np.zeros((2, 9, 8), np.uint8), "zyx")
    )
    first = replace(image.levels[0], shape=(6, 18, 16), scale=(1.0, 0.25, 0.25))
    level = replace(image.levels[0], scale=(3.0, 0.5, 0.5))
    frame = label_frame(replace(image, levels=(first, level)), labels)
    assert (frame.level, frame.scale) == (1, (2.0, 2.0))
    assert [frame.plane((z,)) for z in (0, 1)] == [(0,), (3,)]


def test_a_label_without_an_axis_of_one_plane_fits(tmp_path: Path) -> None:
    image, _ = opened(write_labelled(tmp_path / "a.zarr", np.zeros((1, 1, 9, 8), np.uint8), "tzyx"))
    _, labels = opened(write_labelled(tmp_path / "b.zarr", np.zeros((9, 8), np.uint8)))
    assert label_frame(image, labels).plane(()) == ()


def test_a_label_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = write_labelled(tmp_path / "a.zarr", np.zeros((9, 8), np.uint8), shape=(20, 30))
    line = r"cells has 9 × 8 \(yx\) pixels, and no level of .* has as many: 20 × 30, 10 × 15 \(yx\)"
    with pytest.raises(InputError, match=line):
        label_frame(*opened(path))
