"""Limits are those of tissue: empty glass around it does not move them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import zarr

from bigunet.images.tissue import tissue_pixels
from bigunet.images.windows import sample_windows
from tests.images.made_intensity import limits_of, nuclei

DATA = Path(__file__).resolve().parents[2] / "../shared/data"


def with_margin(image, share, fill, place):
    """Image on a larger canvas, `share` of it empty, at offsets that fit no lattice."""
    h, w = image.shape
    grow = 1 / (1 - share)
    if place == "around":
        shape = round(h * grow**0.5) + 5, round(w * grow**0.5) + 3
        y, x = (shape[0] - h) // 2 | 1, (shape[1] - w) // 2 | 1
    else:
        shape = h, round(w * grow) + 3
        y, x = 0, (shape[1] - w if place == "left" else 0)
    canvas = np.zeros(shape, image.dtype)
    if fill == "noise":
        dark = image[image <= np.percentile(image, 20)]
        canvas = np.random.default_rng(1).choice(dark, size=shape)
    canvas[y : y + h, x : x + w] = image
    return canvas


def shift(image, changed, gain=1.0):
    """How far the normalised value of a bright nucleus moves, in parts of it."""
    bright = np.percentile(image, 99.5)
    (lo, hi), (low, high) = limits_of(image[None])[0], limits_of(changed[None])[0]
    return abs((bright * gain - low) / (high - low) / ((bright - lo) / (hi - lo)) - 1)


def real_images():
    """Name and fluorescence image (Y, X); none where the data is not there."""
    if not (DATA / "ome_zarr").is_dir():
        return
    cardio = zarr.open_group(DATA / "ome_zarr/v04_cardio_mip_labels.zarr", mode="r")
    yield "cardio", cardio["1"][0, 0]
    plk1 = zarr.open_group(DATA / "ome_zarr/v04_nuclei_plk1_control.ome.zarr", mode="r")
    yield "plk1", plk1["0"][0, 0, 0]
    image_module = pytest.importorskip("PIL.Image")
    with (DATA / "dsb2018/split.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["domain"] == "fluorescence"]
    found = {}
    for row in rows[::5]:
        image = np.asarray(image_module.open(DATA / "dsb2018/image" / f"{row['name']}.png"))
        if image.ndim == 2:
            found[float(np.percentile(image, 99.8)), row["name"]] = image
    brightness = sorted(found)
    for key in brightness[:: len(brightness) // 8]:
        yield f"{key[1]} ({key[0]:.0f})", found[key]


@pytest.mark.parametrize("place", ["right", "left", "around"])
@pytest.mark.parametrize("fill", ["zeros", "noise"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_an_empty_margin_moves_a_bright_nucleus_by_less_than_2_percent(share, fill, place):
    image = nuclei()
    assert shift(image, with_margin(image, share, fill, place)) < 0.02


@pytest.mark.parametrize("gain", [0.25, 0.7, 2, 4])
def test_a_gain_moves_a_bright_nucleus_by_less_than_2_percent(gain):
    image = nuclei()
    assert shift(image, image * gain, gain) < 1e-9
    assert shift(image, np.round(image * gain).astype(np.uint16), gain) < 0.002


def test_margin_and_gain_together():
    image = nuclei()
    assert shift(image, with_margin(image, 0.9, "zeros", "around") * 0.25, 0.25) < 0.02


@pytest.mark.parametrize("fill", ["zeros", "noise"])
def test_real_images_stand_margins_and_gains(fill):
    """The numbers of all images at once, so that a failure shows the whole table.

    Not all keep to it: a few of 256 x 256 pixels reach 2.0 to 2.9 % (2 of 32 images in
    one trial). There 0.2 % are a few dozen pixels of one nucleus. Larger ones all do.
    """
    worst = {}
    for name, image in real_images():
        changes = [
            shift(image, with_margin(image, share, fill, place))
            for share in (0.3, 0.95)
            for place in ("right", "left", "around")
        ]
        changes += [shift(image, image * gain, gain) for gain in (0.25, 4.0)]
        worst[name] = float(max(changes)), image.size
    if not worst:
        pytest.skip("shared data is not here")
    assert all(moved < 0.02 for moved, size in worst.values() if size > 256 * 256), worst
    assert all(moved < 0.03 for moved, _ in worst.values()), worst
    assert sum(moved >= 0.02 for moved, _ in worst.values()) <= 1, worst


def test_a_plain_percentile_would_not_do():
    image = nuclei()
    padded = with_margin(image, 0.95, "zeros", "around")
    bright = np.percentile(image, 99.5)
    (lo, hi), (low, high) = (np.percentile(a, [1, 99.8]) for a in (image, padded))
    assert abs((bright - low) / (high - low) / ((bright - lo) / (hi - lo)) - 1) > 0.1


def test_the_ragged_end_of_an_image_adds_no_contrast():
    rng = np.random.default_rng(0)
    for side in (253, 257, 259):
        image = 1000 + rng.normal(0, 3, (side, side))
        image[60:90, 60:90] += 2000
        windows = [image[w[1:]] for w in sample_windows((1, side, side))]
        pixels = sum(part.size for part in tissue_pixels(windows))
        assert 30 * 30 * 0.4 < pixels < 50 * 50
