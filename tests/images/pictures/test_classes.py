"""Colours and names from the metadata of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bigunet.images.open import open_image
from bigunet.images.overlay import write_preview
from bigunet.images.pictures import figure
from bigunet.images.pictures.classes import label_classes
from tests.images.labelled_images import opened, square, write_image, write_labels


def test_class_colours_and_names_are_used(tmp_path: Path) -> None:
    labels = square(60, 60, 10, 10, 30) * np.uint8(2)
    path = write_image(tmp_path / "i.zarr", [labels], "yx", [(1, 1)])
    stated = {
        "version": "0.5",
        "colors": [
            {"label-value": 0, "rgba": [0, 0, 0, 0]},
            {"label-value": 2, "rgba": [0, 255, 0, 255]},
            {"label-value": 3, "rgba": ["x"]},
        ],
        "properties": [
            {"label-value": 2, "class": "nucleus"},
            {"label-value": 3, "class": "bo\nrder"},
            "nonsense",
        ],
    }
    write_labels(path, "l", [labels], "yx", [(1, 1)], **{"image-label": stated})
    classes = label_classes(open_image(path / "labels/l"))
    assert [(c.value, c.name) for c in classes] == [(2, "nucleus"), (3, "border")]
    picture = opened(write_preview(path, "l", tmp_path / "out.png", max_side=400))
    assert (picture == [0, 255, 0]).all(-1).sum() > 100
    legend = picture[-figure.LINE :]
    assert (legend == [0, 255, 0]).all(-1).sum() > 100
    assert max(picture.shape) <= 400
