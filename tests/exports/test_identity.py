"""UUIDs stay the same as long as the objects do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bigunet.exports.identity import label_identity, object_uuid
from bigunet.images.open import open_image, open_labels
from tests.exports.made_labels import write_labelled

MADE: dict[str, Any] = {"model": {"digest": "sha256:0"}, "level": 0, "block": [512, 512]}


def identity(image: Path, **made: Any) -> Any:
    file = image / "labels" / "cells" / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["bigunet"] = MADE | made
    file.write_text(json.dumps(content))
    opened = open_image(image)
    return label_identity(opened, open_labels(opened, "cells"))


def test_a_label_is_what_made_it_and_not_how_that_ran(tmp_path: Path) -> None:
    image = write_labelled(tmp_path / "a.zarr", np.ones((4, 4), np.uint8))
    first = identity(image)
    assert identity(image, block=[1024, 1024], threads=3, version="9") == first
    assert identity(image, level=1) != first
    assert identity(image, model={"digest": "sha256:1"}) != first


def test_labels_of_other_images_are_others(tmp_path: Path) -> None:
    images = [
        write_labelled(tmp_path / name, np.ones((4, 4), np.uint8)) for name in ("a.zarr", "b.zarr")
    ]
    assert identity(images[0]) != identity(images[1])


def test_objects_differ_by_plane_and_id(tmp_path: Path) -> None:
    label = identity(write_labelled(tmp_path / "a.zarr", np.ones((4, 4), np.uint8)))
    made = [object_uuid(label, plane, number) for plane in ((), (1,), (1, 2)) for number in (1, 12)]
    assert len(set(made)) == 6
    assert object_uuid(label, (1, 2), 12) == made[-1]
