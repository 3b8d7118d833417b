"""Objects on disk are those of the whole slide, however it was cut and whoever worked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import ome_zarr_models
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from slides import identity_model, read_label, write_slide

from bigunet import objects, segment_image, verify_image
from bigunet.errors import InputError
from bigunet.images.open import open_image
from bigunet.instances.rules import Rules
from bigunet.instances.split import split_classes
from bigunet.models.unet import UNet
from bigunet.pipeline import Progress, plan_image

QUICK: dict[str, Any] = {"tile": 32, "block": 32, "device": "cpu", "save": ("objects",)}


def renumbered(ids: np.ndarray) -> np.ndarray:
    """Number ids 1 … N in raster order of their first pixels."""
    found, first = np.unique(ids, return_index=True)
    order = found[np.argsort(first)]
    table = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.int64)
    table[order[order > 0]] = np.arange(1, 1 + (order > 0).sum())
    return np.asarray(table[ids])


def labelled(values: np.ndarray) -> np.ndarray:
    """Label planes (P, Y, X) value by value with scipy, and number over all of them."""
    ids, count = np.zeros(values.shape, dtype=np.int64), 0
    for plane, found in zip(values, ids, strict=True):
        for value in np.unique(plane[plane > 0]):
            labels, number = ndimage.label(plane == value)
            found[labels > 0] = labels[labels > 0] + count
            count += number
    return renumbered(ids)


def gap_undone(ids: np.ndarray, gap: int) -> np.ndarray:
    """Look at every object's distance from every pixel."""
    numbers = [int(i) for i in np.unique(ids) if i]
    if gap == 0 or len(numbers) < 2:
        return ids
    distances = np.array([ndimage.distance_transform_cdt(ids != i, "taxicab") for i in numbers])
    order = np.argsort(distances, axis=0, kind="stable")
    first, second = np.sort(distances, axis=0)[:2]
    closes = (ids == 0) & (first + second <= gap + 1)
    return np.where(closes, np.array(numbers)[order[0]], ids)


def holes_filled(ids: np.ndarray) -> np.ndarray:
    filled = ids.copy()
    background, count = ndimage.label(ids == 0)
    for hole in range(1, count + 1):
        mask = background == hole
        touches = mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
        around = set(ids[ndimage.binary_dilation(mask) & ~mask].tolist())
        if not touches and len(around) == 1:
            filled[mask] = around.pop()
    return filled


def oracle(classes: np.ndarray, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of planes (P, Y, X) and the class of each id, from the whole planes."""
    values: np.ndarray = classes
    if rules.max_diameter is not None:
        values = split_classes(
            classes, origin=(0, 0, 0), whole=classes.shape, max_diameter=rules.max_diameter
        )
    ids = labelled(values)
    table = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.uint8)
    table[ids] = classes
    ids = np.stack([gap_undone(plane, rules.gap) for plane in ids])
    if rules.fill_holes:
        ids = np.stack([holes_filled(plane) for plane in ids])
    area = np.bincount(ids.reshape(-1), minlength=table.size)
    most = area.max() if rules.max_area is None else rules.max_area
    kept = (area >= rules.min_area) & (area <= most)
    kept[0] = False
    number = np.where(kept, np.cumsum(kept), 0)
    return number[ids], np.append(0, table[kept])


def model_of(classes: int, gap: int = 0) -> UNet:
    model = identity_model(classes)
    model.card = replace(model.card, gap=gap)
    return model


def stored_classes(slide: Path, name: str = "unet") -> np.ndarray:
    return np.asarray(zarr.open_array(slide / "labels" / name / "classes", mode="r")[:])


def assert_objects(slide: Path, classes: np.ndarray, rules: Rules, name: str = "unet") -> int:
    """Hold a label to the oracle, bit for bit; returns the number of objects."""
    planes = classes.reshape(-1, *classes.shape[-2:])
    ids, table = oracle(planes, rules)
    stored = read_label(slide, name)
    assert stored.dtype == np.uint32
    np.testing.assert_array_equal(stored, ids.reshape(classes.shape))
    np.testing.assert_array_equal(stored_classes(slide, name), table)
    return table.size - 1


def blobs(shape: tuple[int, ...], classes: int, seed: int, fine: bool) -> np.ndarray:
    """Return a class map with objects that cross blocks, touch, enclose and nearly touch."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=shape)
    if not fine:
        noise = ndimage.gaussian_filter(noise, [0.0] * (len(shape) - 2) + [1.5, 1.5])
    which = rng.integers(1, classes, size=shape) if fine else (noise > 0.2).astype(int) + 1
    return np.where(noise > 0, np.minimum(which, classes - 1), 0).astype(np.uint8)


@st.composite
def class_maps(draw: st.DrawFn) -> tuple[np.ndarray, str, int]:
    axes, leading = draw(st.sampled_from([("yx", ()), ("zyx", (2,)), ("tzyx", (2, 2))]))
    shape = (*leading, draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    classes = draw(st.integers(2, 3))
    kind = draw(st.sampled_from(["fine", "coarse", "coarse", "empty", "full"]))
    if kind in ("empty", "full"):
        return np.full(shape, int(kind == "full"), np.uint8), axes, classes
    return blobs(shape, classes, draw(st.integers(0, 99)), kind == "fine"), axes, classes


@st.composite
def all_rules(draw: st.DrawFn) -> dict[str, Any]:
    least = draw(st.sampled_from([0, 0, 3, 9]))
    return {
        "gap": draw(st.sampled_from([0, 0, 1, 2, 3])),
        "fill_holes": draw(st.booleans()),
        "min_area": least,
        "max_area": draw(st.none() | st.integers(max(1, least), 200)),
    }


@settings(max_examples=15)
@given(
    drawn=class_maps(),
    rules=all_rules(),
    block=st.sampled_from([16, 32, 48]),
    chunk=st.integers(7, 70),
    options=st.sampled_from(
        [
            {"overlap": "direct", "workers": 1},
            {"overlap": "direct", "workers": 4},
            {"overlap": "map_overlap", "workers": 2},
            {"scheduler": "sync"},
        ]
    ),
)
def test_objects_are_those_of_the_whole_planes(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: tuple[np.ndarray, str, int],
    rules: dict[str, Any],
    block: int,
    chunk: int,
    options: dict[str, Any],
) -> None:
    classes, axes, number = drawn
    slide = write_slide(tmp_path_factory.mktemp("s") / "s.zarr", classes, axes, chunk=chunk)
    asked = {name: rules[name] for name in ("fill_holes", "min_area", "max_area")}
    model = model_of(number, rules["gap"])
    result = segment_image(slide, model, **(QUICK | {"tile": 16, "block": block} | options | asked))
    assert result.objects == assert_objects(slide, classes, Rules(**rules))
    np.testing.assert_array_equal(
        read_label(slide, "unet", 1), read_label(slide, "unet")[..., ::2, ::2]
    )


def write(folder: Path, classes: np.ndarray, axes: str = "yx", **options: Any) -> Path:
    return write_slide(folder / "slide.zarr", classes, axes, **options)


@pytest.mark.parametrize("split", [{}, {"split": "distance", "max_diameter": 24}])
def test_bytes_do_not_depend_on_blocks_and_workers(tmp_path: Path, split: dict[str, Any]) -> None:
    classes = blobs((110, 130), 3, seed=3, fine=False)
    slide = write(tmp_path, classes)
    found = []
    for block, workers in ((32, 1), (64, 2), (96, 4), (160, 4)):
        name = f"b{block}"
        options = QUICK | {"block": block, "workers": workers, "fill_holes": True, "min_area": 4}
        segment_image(slide, model_of(3, gap=2), name=name, **(options | split))
        found.append((read_label(slide, name).tobytes(), stored_classes(slide, name).tobytes()))
    assert len(set(found)) == 1
    rules = Rules(gap=2, fill_holes=True, min_area=4, **split)
    assert assert_objects(slide, classes, rules, "b32") > 20


@pytest.mark.parametrize("overlap", ["direct", "map_overlap"])
def test_all_kinds_come_from_one_pass(tmp_path: Path, overlap: str) -> None:
    classes = blobs((2, 40, 50), 3, seed=1, fine=False)
    slide, out = write(tmp_path, classes, "zyx"), tmp_path / "out.zarr"
    model = model_of(3)
    options = QUICK | {"overlap": overlap, "save": ("probabilities", "classes", "objects")}
    result = segment_image(slide, model, output=out, **options)
    assert result.outputs == {
        "objects": out / "labels" / "unet",
        "classes": out / "labels" / "unet-classes",
        "probabilities": out,
    }
    assert_objects(out, classes, Rules())
    np.testing.assert_array_equal(read_label(out, "unet-classes"), classes)
    likely = np.asarray(zarr.open_array(out / "0", mode="r")[:]).argmax(0)
    np.testing.assert_array_equal(likely, classes)


def test_objects_and_classes_are_two_labels_of_the_image(tmp_path: Path) -> None:
    classes = blobs((60, 50), 3, seed=2, fine=False)
    slide = write(tmp_path, classes)
    result = segment_image(slide, model_of(3), **(QUICK | {"save": ("classes", "objects")}))
    labels = slide / "labels"
    assert result.outputs == {"objects": labels / "unet", "classes": labels / "unet-classes"}
    np.testing.assert_array_equal(read_label(slide, "unet-classes"), classes)
    assert open_image(slide).labels == ("unet", "unet-classes")
    assert_objects(slide, classes, Rules())
    assert result.lines()[1].startswith(f"{result.objects} objects, median diameter ")
    assert f"{labels / 'unet'}" in result.lines()[2] and "preview" in result.lines()[-1]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_label_is_valid_and_says_what_made_it(tmp_path: Path, version: str) -> None:
    classes = blobs((60, 50), 3, seed=2, fine=False)
    slide = write(tmp_path, classes, version=version)
    model = model_of(3, gap=1)
    model.card = replace(model.card, class_names=("nothing", "small", "large"))
    segment_image(slide, model, min_area=3, **QUICK)
    group = zarr.open_group(slide / "labels" / "unet", mode="r")
    assert type(ome_zarr_models.open_ome_zarr(group)).__name__ == "ImageLabel"
    attributes: Any = dict(group.attrs)
    made = attributes["bigunet"]["objects"]
    assert (made["gap"], made["min_area"], made["connectivity"]) == (1, 3, 4)
    assert made["count"] == read_label(slide, "unet").max()
    stated = attributes.get("ome", attributes)["image-label"]
    assert "colors" not in stated and stated["source"] == {"image": "../../"}
    numbers = group["classes"]
    assert isinstance(numbers, zarr.Array) and numbers.shape == (made["count"] + 1,)
    assert numbers.attrs["class_names"] == ["nothing", "small", "large"]


def test_a_region_has_the_objects_of_its_window(tmp_path: Path) -> None:
    classes = blobs((90, 80), 2, seed=4, fine=False)
    slide = write(tmp_path, classes)
    (y0, y1), (x0, x1) = region = ((13, 70), (21, 59))
    rules = {"fill_holes": True, "min_area": 2}
    segment_image(slide, model_of(2, gap=3), region=region, **QUICK, **rules)
    stored = read_label(slide, "unet")
    ids, _ = oracle(classes[None, y0:y1, x0:x1], Rules(gap=3, **rules))
    np.testing.assert_array_equal(stored[y0:y1, x0:x1], ids[0])
    stored[y0:y1, x0:x1] = 0
    assert not stored.any()


def test_local_processes_share_the_staged_blocks(tmp_path: Path) -> None:
    classes = blobs((2, 70, 60), 3, seed=5, fine=False)
    slide = write(tmp_path, classes, "tyx")
    rules = {"fill_holes": True, "split": "distance", "max_diameter": 30}
    options = QUICK | rules | {"scheduler": "processes", "workers": 2}
    segment_image(slide, model_of(3, gap=2), **options)
    assert_objects(slide, classes, Rules(gap=2, **rules))


def test_sizes_in_micrometres_need_the_size_of_a_pixel(tmp_path: Path) -> None:
    classes = blobs((60, 50), 2, seed=2, fine=False)
    slide = write(tmp_path, classes, pixel_size=0.5)
    segment_image(slide, model_of(2), min_area="5um2", **QUICK)
    assert_objects(slide, classes, Rules(min_area=20))
    group = zarr.open_group(slide, mode="r+")
    ome: Any = group.attrs["ome"]
    for axis in ome["multiscales"][0]["axes"]:
        del axis["unit"]
    group.attrs["ome"] = ome
    with pytest.raises(InputError, match=r"min_area '5um2' .* does not say how large its pixels"):
        segment_image(slide, model_of(2), name="n", min_area="5um2", **QUICK)


def test_objects_are_the_default_of_models_trained_on_objects(tmp_path: Path) -> None:
    slide = write(tmp_path, blobs((60, 50), 2, seed=2, fine=False))
    plain, trained = identity_model(2), identity_model(2)
    trained.card = replace(trained.card, instances=True)
    assert [o.kind for o in plan_image(slide, plain).outputs] == ["classes"]
    assert [o.kind for o in plan_image(slide, trained).outputs] == ["objects"]
    assert [o.kind for o in plan_image(slide, model_of(2, gap=2)).outputs] == ["objects"]
    assert any("gap of 2 px undone" in line for line in plan_image(slide, model_of(2, 2)).lines())


def test_every_stage_is_told(tmp_path: Path) -> None:
    slide = write(tmp_path, blobs((60, 50), 2, seed=2, fine=False))
    told: list[Progress] = []
    options = QUICK | {"split": "distance", "max_diameter": 20, "progress": told.append}
    segment_image(slide, model_of(2, gap=1), **options)
    stages = list(dict.fromkeys(t.stage for t in told))
    assert stages == ["plan", "segment", "split", "merge", "rules", "relabel", "pyramid", "commit"]
    for stage in stages[1:-1]:
        last = [t for t in told if t.stage == stage][-1]
        assert last.done == last.total > 0


@pytest.mark.parametrize(("known", "warned"), [((5.0, 9.0), False), ((30.0, 90.0), True)])
def test_sizes_that_the_model_does_not_know_are_said(
    tmp_path: Path, known: tuple[float, float], warned: bool
) -> None:
    classes = np.zeros((60, 50), np.uint8)
    classes[10:16, 10:16] = classes[30:36, 20:26] = 1
    slide, model = write(tmp_path, classes), model_of(2)
    model.card = replace(model.card, diameters=known)
    said: list[Progress] = []
    result = segment_image(slide, model, progress=said.append, **QUICK)
    assert result.objects == 2 and result.median_diameter == pytest.approx(6.77, abs=0.01)
    warnings = [t.message for t in said if t.message and t.message.startswith("warning: the obj")]
    assert bool(warnings) == warned
    assert all("6.8 px" in w and "30.0 to 90.0 px" in w for w in warnings)


def test_the_proof_finds_what_is_wrong_with_objects(tmp_path: Path) -> None:
    classes = blobs((130, 140), 3, seed=6, fine=False)
    slide = write(tmp_path, classes)
    rules, coarse = {"fill_holes": True, "min_area": 6}, {"tile": 64, "block": 64}
    for name, options in (("plain", {}), ("ruled", rules)):
        segment_image(
            slide, model_of(3, gap=2 if options else 0), name=name, **(QUICK | coarse | options)
        )
    model, ruled = model_of(3), model_of(3, gap=2)
    assert verify_image(slide, "plain", model, windows=4).ok
    assert verify_image(slide, "ruled", ruled, windows=4).ok
    ids = zarr.open_array(slide / "labels" / "plain" / "0", mode="r+")
    right = np.asarray(ids[:])
    y, x = np.argwhere((right[1:] > 0) & (right[1:] == right[:-1]))[0] + (1, 0)
    for wrong in (0, int(right.max()), 10**6):
        ids[int(y), int(x)] = wrong
        assert verify_image(slide, "plain", model, windows=4).differing > 0, wrong
    ids[:] = right
    assert verify_image(slide, "plain", model, windows=4).ok
    # An object that ends at a seam though its class goes on.
    ids[64:] = np.where(right[64:] > 0, right[64:] % int(right.max()) + 1, 0)
    assert not verify_image(slide, "plain", model, windows=4).ok


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_area": 4, "max_area": 400, "fill_holes": True},
        {"split": "distance", "max_diameter": 40},
    ],
)
def test_the_lazy_objects_are_those_that_are_written(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(150, 130)), 2)
    classes = (noise > 0.02).astype(np.uint8) + (noise > 0.1)
    slide, model = write_slide(tmp_path / "s.zarr", classes, "yx"), model_of(3, gap=2)
    segment_image(slide, model, **QUICK, **options)
    ids, class_of = objects(da.from_array(classes, 70), model, tile=64, block=64, **options)
    assert int(ids.max()) > 20
    np.testing.assert_array_equal(ids, read_label(slide, "unet"))
    np.testing.assert_array_equal(class_of, stored_classes(slide))
