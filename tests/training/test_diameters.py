"""Diameters of objects to learn from, against scikit-image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.measure import regionprops

from bigunet.training.dataset import open_dataset
from bigunet.training.diameters import diameter_range


def test_the_range_is_that_of_scikit_images_diameters(cells: Path) -> None:
    dataset = open_dataset(cells, val_share=0)
    masks = [np.asarray(Image.open(path)) for path in (cells / "masks").iterdir()]
    truth = [one.equivalent_diameter_area for mask in masks for one in regionprops(mask)]
    assert diameter_range(dataset.train) == pytest.approx(tuple(np.percentile(truth, [1, 99])))


def test_without_objects_there_is_no_range() -> None:
    assert diameter_range([]) is None
