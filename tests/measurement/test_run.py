"""Tables of whole runs, compared with `regionprops_table` of the whole array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from images.labelled_images import write_image, write_labels
from pyarrow import parquet
from scipy import ndimage
from skimage.measure import regionprops_table

from bigunet import walk
from bigunet.errors import BigunetError, RunError
from bigunet.images.ngff import PROVENANCE
from bigunet.measurement import run
from bigunet.measurement.properties import DEFAULT
from bigunet.measurement.run import measure_objects

ADDING = ("extent", "inertia_tensor", "axis_major_length", "equivalent_diameter_area")
MORE = ("feret_diameter_max", "euler_number", "moments_central", "centroid_weighted", *ADDING)


def make_labels(shape: tuple[int, ...], seed: int = 0, dtype: str = "uint32") -> np.ndarray:
    """Make connected blobs, some of which then share an id."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), (0,) * (len(shape) - 2) + (2, 2))
    labels = ndimage.label(smooth > 0.08)[0].astype(dtype)
    labels[labels % 5 == 4] -= 1
    return labels


def write_pair(
    path: Path, labels: np.ndarray, *, channels: int = 2, dtype: str = "uint16", **options: Any
) -> np.ndarray:
    """Write an image (…, c, y, x) with random pixels, and its labels (…, y, x)."""
    shape = (*labels.shape[:-2], channels, *labels.shape[-2:])
    pixels = np.random.default_rng(9).integers(0, 60_000, shape).astype(dtype)
    axes = {2: "cyx", 3: "tcyx", 4: "tczyx"}[labels.ndim]
    if axes == "tczyx":
        pixels = np.moveaxis(pixels, 2, 1)
    names = {"omero": {"channels": [{"label": n} for n in ("DAPI", "GFP")[:channels]]}}
    write_image(path, [pixels], axes, [_scale(axes)], **names, **options)
    plain = axes.replace("c", "")
    write_labels(path, "cells", [labels], plain, [_scale(plain)], **options)
    return pixels


def _scale(axes: str) -> tuple[float, ...]:
    return tuple({"y": 0.5, "x": 0.25}.get(axis, 1.0) for axis in axes)


def table(path: Path, **options: Any) -> dict[str, np.ndarray]:
    out = path.with_suffix(".parquet")
    options = {"scheduler": "sync", "overwrite": True} | options
    measured = measure_objects(path, "cells", out, **options)
    found = {k: np.array(v) for k, v in parquet.read_table(out).to_pydict().items()}
    assert list(found) == list(measured.columns) and found["id"].size == measured.objects
    return found


def assert_is_table_of_whole(
    found: dict[str, np.ndarray], labels: np.ndarray, pixels: np.ndarray, names: tuple[str, ...]
) -> None:
    """Compare rows of one plane with scikit-image's table of (Y, X) labels, (C, Y, X) pixels."""
    # It labels up to the largest id, whatever the ids are.
    ids, plain = np.unique(labels, return_inverse=True)
    plain = plain.reshape(labels.shape) + (ids[0] != 0)
    wanted = ("label", "area", "centroid", "bbox", *names)
    with np.errstate(all="ignore"):
        whole = regionprops_table(plain, np.moveaxis(pixels, 0, -1), properties=wanted)
    firsts = {number: np.flatnonzero(plain == number)[0] for number in whole["label"]}
    order = np.argsort([firsts[number] for number in whole["label"]])
    renamed = {"centroid-0": "centroid_y", "centroid-1": "centroid_x"} | {
        f"bbox-{i}": f"bbox_{part}" for i, part in enumerate(("top", "left", "bottom", "right"))
    }
    values = ids[ids != 0]
    np.testing.assert_array_equal(found["id"], values[whole.pop("label")[order] - 1])
    for name, column in whole.items():
        ours = name
        if name.startswith(("intensity", "centroid_weighted")):
            ours = name[:-1] + ("DAPI", "GFP")[int(name[-1])]
        np.testing.assert_allclose(
            found[renamed.get(name, ours)], column[order], rtol=1e-12, err_msg=name
        )


@settings(max_examples=15)
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(st.integers(4, 30), st.integers(4, 30)),
    side=st.sampled_from([5, 8, 64]),
    dtype=st.sampled_from(["uint32", "int16", "uint64"]),
)
def test_rows_are_those_of_the_whole_array(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    shape: tuple[int, int],
    side: int,
    dtype: str,
) -> None:
    path = tmp_path_factory.mktemp("measure") / "a.zarr"
    labels = make_labels(shape, seed, dtype)
    if dtype == "uint64":
        labels[labels > 0] += np.uint64(2**63)
    pixels = write_pair(path, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "SIDE", side)
        found = table(path, properties=(*DEFAULT, *MORE))
    if labels.any():
        assert_is_table_of_whole(found, labels, pixels, (*DEFAULT, *MORE))
    assert found["id"].size == np.unique(labels[labels > 0]).size


def test_planes_are_measured_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "SIDE", 10)
    labels = make_labels((2, 3, 30, 40))
    pixels = write_pair(tmp_path / "a.zarr", labels, dtype="float32")
    found = table(tmp_path / "a.zarr")
    assert (np.diff(3 * found["t"] + found["z"]) >= 0).all()
    for t, z in np.ndindex(2, 3):
        here = (found["t"] == t) & (found["z"] == z)
        rows = {name: column[here] for name, column in found.items()}
        assert_is_table_of_whole(rows, labels[t, z], pixels[t, :, z].astype(float), DEFAULT)


def test_files_do_not_depend_on_blocks_or_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    write_pair(path, make_labels((2, 30, 25)), dtype="float32")
    files = []
    for side, scheduler, workers in [
        (2048, "sync", 1),
        (9, "threads", 4),
        (16, "threads", 1),
        (20, "processes", 2),
    ]:
        monkeypatch.setattr(walk, "SIDE", side)
        for suffix in (".parquet", ".csv"):
            out = tmp_path / f"{side}{suffix}"
            measure_objects(path, "cells", out, scheduler=scheduler, workers=workers)
            files.append(out.read_bytes())
    assert len(set(files[::2])) == 1 and len(set(files[1::2])) == 1


@pytest.mark.parametrize("side", [9, 64])
def test_large_objects_are_combined_from_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    labels = make_labels((60, 50))
    pixels = write_pair(tmp_path / "a.zarr", labels)
    whole = table(tmp_path / "a.zarr", properties=(*DEFAULT, *ADDING))
    monkeypatch.setattr(walk, "SIDE", side)
    monkeypatch.setattr(run, "LARGEST_BOX", 60)
    found = table(tmp_path / "a.zarr", properties=(*DEFAULT, *ADDING))
    large = (whole["bbox_bottom"] - whole["bbox_top"]) * (
        whole["bbox_right"] - whole["bbox_left"]
    ) > 60
    assert 3 < large.sum() < large.size - 3
    for name, column in whole.items():
        if name in ("perimeter", "solidity"):
            assert [v is None for v in found[name]] == large.tolist()
            assert (found[name][~large] == column[~large]).all()
        else:
            np.testing.assert_allclose(found[name], column, rtol=1e-9, atol=1e-9, err_msg=name)
    result = measure_objects(tmp_path / "a.zarr", "cells", tmp_path / "b.csv", scheduler="sync")
    assert f"{large.sum()} objects have boxes of more than" in result.notes[0]
    assert pixels.shape == (2, 60, 50)


def test_micrometres_stand_beside_pixels(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[2:6, 10:20] = 7
    write_pair(tmp_path / "a.zarr", labels)
    found = table(tmp_path / "a.zarr", properties=())
    expected = {
        "area_um2": 40 * 0.125,
        "centroid_y_um": 3.5 * 0.5,
        "centroid_x_um": 14.5 * 0.25,
        "bbox_top_um": 1.0,
        "bbox_left_um": 2.5,
        "bbox_bottom_um": 3.0,
        "bbox_right_um": 5.0,
    }
    assert {name: found[name].item() for name in found if "_um" in name} == expected
    assert not [name for name in table(tmp_path / "a.zarr", units="px") if "_um" in name]


def test_labels_of_a_coarser_level_lie_on_level_0(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    fine = np.random.default_rng(0).integers(0, 99, (41, 60)).astype(np.uint8)
    coarse = fine[::2, ::2]
    write_image(path, [fine, coarse], "yx", [(0.5, 0.5), (1.0, 1.0)])
    labels = np.zeros((21, 30), np.uint8)
    labels[1:3, 4:9], labels[19:, 20:] = 2, 1
    write_labels(path, "cells", [labels], "yx", [(1.0, 1.0)])
    found = table(path)
    assert found["area"].tolist() == [40, 80]
    assert found["centroid_y"].tolist() == [3.5, 39.5] and found["centroid_x"][0] == 12.5
    boxes = [found[f"bbox_{part}"].tolist() for part in ("top", "left", "bottom", "right")]
    assert boxes == [[2, 38], [8, 40], [6, 41], [18, 60]]
    means = [coarse[labels == number].mean() for number in (2, 1)]
    np.testing.assert_allclose(found["intensity_mean-0"], means)


def add_classes(path: Path, classes: list[int]) -> None:
    """Give objects classes, as `bigunet segment` writes them."""
    group = zarr.open_group(path / "labels" / "cells")
    array = group.create_array("classes", data=np.array(classes, dtype=np.uint8))
    array.attrs["class_names"] = ["background", "nucleus", "cyst"]
    names = {"class_names": ["background", "nucleus", "cyst"]}
    group.attrs[PROVENANCE] = {"model": {}, "objects": names}


def test_classes_and_their_mean_probability(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    labels = make_labels((40, 40))
    ids = np.unique(labels)[1:]
    classes = [0, *(1 + i % 2 for i in range(labels.max()))]
    pixels = write_pair(path, labels)
    add_classes(path, classes)
    found = table(path, properties=())
    assert found["class"].tolist() == [classes[i] for i in found["id"]]
    assert set(found["class_name"]) == {"nucleus", "cyst"} and "probability" not in found

    shape = (3, 40, 40)
    chances = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    write_image(tmp_path / "b.zarr", [chances], "cyx", [_scale("cyx")])
    zarr.open_group(tmp_path / "b.zarr").attrs[PROVENANCE] = {"model": {}}
    write_labels(tmp_path / "b.zarr", "cells", [labels], "yx", [_scale("yx")])
    add_classes(tmp_path / "b.zarr", classes)
    expected = [chances[classes[i]][labels == i].mean() / 255 for i in found["id"]]
    # Beside the probabilities, and with the intensities of the image that was segmented.
    alone = table(tmp_path / "b.zarr")
    np.testing.assert_allclose(alone["probability"], expected, rtol=1e-12)
    assert not [name for name in alone if name.startswith("intensity")]
    where = str(tmp_path / "b.zarr" / "labels" / "cells")
    measure_objects(path, where, tmp_path / "c.parquet", scheduler="sync")
    both = parquet.read_table(tmp_path / "c.parquet").to_pydict()
    np.testing.assert_allclose(both["probability"], expected, rtol=1e-12)
    means = [pixels[0][labels == i].mean() for i in both["id"]]
    np.testing.assert_allclose(both["intensity_mean-DAPI"], means, rtol=1e-12)
    assert sorted(both["id"]) == ids.tolist()


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(BigunetError) as refused:
        measure_objects(*arguments, **options)
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)
    return str(refused.value)


def test_refusals(tmp_path: Path) -> None:
    path, out = tmp_path / "a.zarr", tmp_path / "a.csv"
    write_pair(path, make_labels((20, 30)), unit=None)
    assert "has no labels 'nuclei': it has cells" in refusal(path, "nuclei", out)
    assert "gives no unit of length" in refusal(path, "cells", out, units="um")
    assert "'round' is unknown" in refusal(path, "cells", out, properties=["round"])
    assert "'RFP' is no channel" in refusal(path, "cells", out, channels=["RFP"])
    assert "tables are written as" in refusal(path, "cells", tmp_path / "a.txt")
    assert "there is no folder" in refusal(path, "cells", tmp_path / "b" / "a.csv")
    write_labels(path, "floats", [np.zeros((20, 30), np.float32)], "yx", [(1.0, 1.0)])
    assert "its type is float32; labels are integers" in refusal(path, "floats", out)
    write_labels(path, "small", [np.zeros((20, 29), np.uint8)], "yx", [(1.0, 1.0)])
    line = refusal(path, "small", out)
    assert "20 × 29" in line and "2 × 20 × 30" in line
    out.write_text("mine")
    assert "is there already" in refusal(path, "cells", out)
    assert out.read_text() == "mine"


def test_what_fails_at_work_leaves_the_old_table(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[3, 4] = -2
    write_pair(tmp_path / "a.zarr", labels)
    out = tmp_path / "a.csv"
    out.write_text("mine")
    with pytest.raises(RunError, match="id -2 at row 3, column 4 is negative"):
        measure_objects(tmp_path / "a.zarr", "cells", out, overwrite=True, scheduler="sync")
    assert out.read_text() == "mine" and not list(tmp_path.glob(".*"))
