"""Labels lie on their image, whatever levels, units and axes both have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from bigunet.images.open import open_image
from bigunet.images.overlay import write_preview
from bigunet.images.pictures.resampling import Source
from tests.images.labelled_images import opened, square, write_image, write_labels


@pytest.mark.parametrize("unit", ["micrometer", None])
@pytest.mark.parametrize("step", [1, 2, 4])
def test_labels_lie_on_the_image_whatever_level_they_start_at(
    tmp_path: Path, step: int, unit: str | None
) -> None:
    full = square(256, 320, 64, 160, 48)
    levels = [full[:: 2**k, :: 2**k] * np.uint8(200) for k in range(3)]
    scales = [(0.5 * 2**k, 0.5 * 2**k) for k in range(3)]
    path = write_image(tmp_path / "i.zarr", levels, "yx", scales, unit)
    own = [full[:: step * 2**k, :: step * 2**k] for k in range(2)]
    write_labels(path, "l", own, "yx", [(0.5 * step * 2**k,) * 2 for k in range(2)], unit)
    source = Source(open_image(path), open_image(path / "labels/l"))
    whole = ((0, 256 // step), (0, 320 // step))
    for size in ((256, 320), (64, 80), (512, 640)):
        bright = source.pixels(whole, size)[0] > 100
        ids = source.ids(whole, size) > 0
        rim = 2 * (4 * 49) * (size[0] / 256) ** 2
        assert (bright != ids).sum() <= rim
        assert ids.sum() == pytest.approx(48**2 * (size[0] / 256) ** 2, rel=0.01)
    region = ((64 // step, 112 // step), (160 // step, 208 // step))
    assert source.ids(region, (48, 48)).all()
    assert (source.pixels(region, (48, 48)) > 100).mean() > 0.9
    micrometres = source.micrometres()
    assert micrometres == (None if unit is None else 0.5 * step)


def test_units_and_translations_are_followed(tmp_path: Path) -> None:
    image = square(100, 100, 20, 30, 40)
    path = write_image(tmp_path / "i.zarr", [image], "yx", [(0.5, 0.5)], "micrometer")
    labels = write_labels(path, "l", [image[20:60, 30:70]], "yx", [(500, 500)], "nanometer")
    group = zarr.open_group(labels, mode="r+")
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"].append(
        {"type": "translation", "translation": [10_000, 15_000]}
    )
    group.attrs["ome"] = ome
    source = Source(open_image(path), open_image(labels))
    whole = ((0, 40), (0, 40))
    assert (source.pixels(whole, (40, 40)) == 1).all()
    assert (source.ids(whole, (40, 40)) == 1).all()


@pytest.mark.parametrize(
    ("axes", "label_axes"),
    [
        ("yx", "yx"),
        ("cyx", "yx"),
        ("zyx", "zyx"),
        ("czyx", "zyx"),
        ("tczyx", "tzyx"),
        ("tczyx", "yx"),
    ],
)
def test_any_axes_first_time_point_and_middle_plane(
    tmp_path: Path, axes: str, label_axes: str
) -> None:
    sizes = {"t": 2, "c": 2, "z": 5, "y": 40, "x": 30}
    places = {"t": 0, "c": slice(None), "z": 2, "y": slice(None), "x": slice(None)}
    image = np.zeros([sizes[a] for a in axes], np.uint16)
    image[tuple(places[a] for a in axes)] = square(40, 30, 10, 10, 12) * np.uint16(900)
    labels = np.full([sizes[a] for a in label_axes], 7, np.uint16)
    labels[tuple(places[a] for a in label_axes)] = square(40, 30, 10, 10, 12)
    path = write_image(tmp_path / "i.zarr", [image], axes, [(1,) * len(axes)])
    write_labels(path, "l", [labels], label_axes, [(1,) * len(label_axes)])
    source = Source(open_image(path), open_image(path / "labels/l"))
    whole = ((0, 40), (0, 30))
    np.testing.assert_array_equal(source.ids(whole, (40, 30)), square(40, 30, 10, 10, 12))
    for channel in source.pixels(whole, (40, 30)):
        np.testing.assert_array_equal(channel > 450, square(40, 30, 10, 10, 12) > 0)
    opened(write_preview(path, "l", tmp_path / "out.png", max_side=300))
