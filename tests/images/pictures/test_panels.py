"""The crop is where there is most to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bigunet.images.open import open_image
from bigunet.images.pictures import panels
from bigunet.images.pictures.resampling import Source
from tests.images.labelled_images import write_image, write_labels


def test_the_crop_is_where_borders_are(tmp_path: Path) -> None:
    labels = np.zeros((1500, 4000), np.uint32)
    labels[1000:1300, 3000:3300] = np.arange(90000).reshape(300, 300) // 64 + 1
    path = write_image(tmp_path / "i.zarr", [labels.astype(np.uint16)], "yx", [(1, 1)])
    write_labels(path, "l", [labels], "yx", [(1, 1)])
    source = Source(open_image(path), open_image(path / "labels/l"))
    (top, bottom), (left, right) = panels._busiest(source)
    assert top <= 1000
    assert bottom >= 1300
    assert left <= 3000
    assert right >= 3300
    assert (bottom - top, right - left) == (512, 512)
