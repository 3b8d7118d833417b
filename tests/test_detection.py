"""Objects of a network are those of its classes, by the rules of its card."""

from __future__ import annotations

from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pytest

import bigunet
from bigunet.errors import InputError
from bigunet.instances.rules import Rules
from tests.instances.routes import objects_of_the_whole
from tests.strategies import random_image, random_model


def speckled(gap: int = 0, classes: int = 3):
    model = random_model(1, classes=classes, seed=3)
    model.card = replace(model.card, gap=gap)
    return model


@pytest.mark.parametrize("gap", [0, 2])
@pytest.mark.parametrize("options", [{}, {"fill_holes": True, "min_area": 3, "max_area": 60}])
def test_objects_are_those_of_the_classes(gap, options):
    model = speckled(gap)
    image = random_image((70, 90), np.float32)
    expected = objects_of_the_whole(
        np.asarray(bigunet.segment(image, model, tile=16)), Rules(gap=gap, **options)
    )
    assert len(set(expected.classes)) == 2 < len(expected.classes)
    for block, chunk in ((16, 33), (48, 90), (None, 20)):
        found = bigunet.objects(
            da.from_array(image, chunk), model, tile=16, block=block, device="cpu", **options
        )
        ids, classes = dask.compute(*found, scheduler="synchronous")
        np.testing.assert_array_equal(ids, expected.ids)
        assert classes.tolist() == [0, *expected.classes]


def test_splitting_is_passed_on():
    model, image = speckled(classes=2), random_image((60, 60), np.float32)
    whole, _ = bigunet.objects(image, model, tile=16)
    parts, _ = bigunet.objects(image, model, tile=16, split="distance", max_diameter=60)
    assert int(parts.max()) > int(whole.max())
    np.testing.assert_array_equal(np.asarray(parts) > 0, np.asarray(whole) > 0)


def test_options_of_the_network_are_passed_on():
    model, image = speckled(), random_image((40, 40), np.float32)
    options = {"augment": "d4", "intensity": [(0, 2)], "tile": 16, "precision": "float32"}
    ids, classes = bigunet.objects(image, model, **options)
    of_pixels = np.asarray(classes)[np.asarray(ids)]
    np.testing.assert_array_equal(of_pixels, bigunet.segment(image, model, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_area": -1}, "min_area -1"),
        ({"split": "distance"}, "give both or neither"),
        ({"tile": 0}, "tile is 0"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(InputError, match=message):
        bigunet.objects(np.zeros((20, 20)), speckled(), **options)
