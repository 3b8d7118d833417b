"""Classes of objects, as far as metadata tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from bigunet.errors import RunError
from bigunet.images.attributes import default_color
from bigunet.images.classification import Classification, ObjectClass, read_classification
from bigunet.images.open import open_image, open_labels
from tests.exports.made_labels import write_labelled


def classified(
    folder: Path, numbers: Any, zarr_format: int = 3, **attributes: Any
) -> Classification:
    labels = np.zeros((4, 4), np.uint8)
    path = write_labelled(folder / "a.zarr", labels, zarr_format=zarr_format)
    group = zarr.open_group(path / "labels" / "cells")
    group.create_array("classes", data=np.asarray(numbers)).attrs.update(attributes)
    return read_classification(open_labels(open_image(path), "cells"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_index_is_the_id(tmp_path: Path, zarr_format: int) -> None:
    names = ["background", "nucleus", "border"]
    found = classified(tmp_path, [0, 2, 1, 2], zarr_format, class_names=names)
    assert [found.number(k) for k in range(5)] == [0, 2, 1, 2, None]
    assert found.of(3) == ObjectClass(name="border", color=default_color(2)[:3])
    assert found.of(0) is None and found.of(4) is None


@pytest.mark.parametrize(
    "attributes",
    [{}, {"class_names": 5, "class_colors": {}}, {"class_names": [], "class_colors": ["x", "y"]}],
)
def test_unusable_names_and_colours_are_left_out(
    tmp_path: Path, attributes: dict[str, Any]
) -> None:
    found = classified(tmp_path, [0, 1], **attributes)
    assert found.of(1) == ObjectClass(name="class 1", color=default_color(1)[:3])


@pytest.mark.parametrize("numbers", [np.zeros((2, 2), int), np.zeros(3)])
def test_an_array_of_something_else_is_said(tmp_path: Path, numbers: np.ndarray) -> None:
    with pytest.raises(RunError, match=r"a number for each object, cannot be read: it is no list"):
        classified(tmp_path, numbers)


def test_ids_without_names_have_no_class(tmp_path: Path) -> None:
    stated = {"colors": [{"label-value": 3, "rgba": [1, 2, 3, 255]}]}
    path = write_labelled(
        tmp_path / "a.zarr", np.zeros((4, 4), np.uint8), **{"image-label": stated}
    )
    found = read_classification(open_labels(open_image(path), "cells"))
    assert found.number(3) is None and found.of(3) is None
