"""A picture shows what is there, where it is, and reads no more than it needs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from bigunet.errors import InputError, NotFoundError, OutputError, RunError
from bigunet.images import overlay as module
from bigunet.images.open import Plane, open_image
from bigunet.images.overlay import overlay, write_preview
from bigunet.images.sample import write_sample

REAL = Path(__file__).resolve().parents[2] / "../shared/data/ome_zarr"


def write_image(
    path: Path,
    levels: list[np.ndarray | tuple[int, ...]],
    axes: str,
    scales: list[tuple[float, ...]],
    unit: str | None = "micrometer",
    **ome: Any,
) -> Path:
    """Write arrays (or empty ones of a shape) as the levels of an OME-Zarr 0.5 image."""
    group = zarr.open_group(path, mode="a", zarr_format=3)
    datasets = []
    for k, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        shape = level if isinstance(level, tuple) else level.shape
        dtype = np.uint16 if isinstance(level, tuple) else level.dtype
        chunks = tuple(min(n, 1024) for n in shape)
        array = group.create_array(str(k), shape=shape, dtype=dtype, chunks=chunks)
        if not isinstance(level, tuple):
            array[...] = level
        transformations = [{"type": "scale", "scale": list(scale)}]
        datasets.append({"path": str(k), "coordinateTransformations": transformations})
    kinds = {"t": "time", "c": "channel"}
    named: list[dict[str, str]] = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in named[-2:]:
        axis.update({"unit": unit} if unit else {})
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": named, "datasets": datasets}],
        **ome,
    }
    return path


def write_labels(image: Path, name: str, *args: Any, **ome: Any) -> Path:
    group = zarr.open_group(image / "labels", mode="a", zarr_format=3)
    listed = [*group.attrs.get("ome", {}).get("labels", []), name]
    group.attrs["ome"] = {"version": "0.5", "labels": listed}
    stated = {"image-label": {"version": "0.5"}, **ome}
    return write_image(image / "labels" / name, *args, **stated)


def opened(out: Path) -> np.ndarray:
    with Pillow.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "RGB"
        return np.asarray(picture)


def square(height: int, width: int, top: int, left: int, side: int) -> np.ndarray:
    array = np.zeros((height, width), np.uint8)
    array[top : top + side, left : left + side] = 1
    return array


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample") / "slide.zarr", 1500, seed=1)


# overlay: arrays


@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=7),
    ),
    data=st.data(),
)
@settings(deadline=None)
def test_overlay_draws_any_image(image: np.ndarray, data: st.DataObject) -> None:
    dtypes = st.sampled_from([np.uint8, np.int32, np.uint64, np.int8])
    labels = data.draw(dtypes.flatmap(lambda d: hnp.arrays(d, image.shape[-2:])))
    drawn = overlay(image, labels)
    assert drawn.shape == (*labels.shape, 3)
    assert drawn.dtype == np.uint8
    bare = overlay(image, np.zeros_like(labels))
    np.testing.assert_array_equal(drawn[labels == 0], bare[labels == 0])


def test_fill_is_translucent_and_outlines_are_not() -> None:
    labels = square(20, 20, 5, 5, 8)
    drawn = overlay(np.full((3, 20, 20), 200, np.uint8), labels, {1: (255, 0, 0)})
    np.testing.assert_array_equal(drawn[0, 0], [200, 200, 200])
    np.testing.assert_array_equal(drawn[5, 7], [255, 0, 0])
    np.testing.assert_array_equal(drawn[12, 12], [255, 0, 0])
    assert drawn[8, 8, 0] > 200 > drawn[8, 8, 1] > 0
    bare = overlay(np.full((3, 20, 20), 200, np.uint8), labels, {1: (255, 0, 0)}, outlined=False)
    np.testing.assert_array_equal(bare[5, 7], bare[8, 8])


def test_labels_of_alpha_0_are_not_drawn() -> None:
    labels = square(9, 9, 2, 2, 4)
    image = np.arange(81).reshape(9, 9)
    drawn = overlay(image, labels, {1: (255, 0, 0, 0)})
    np.testing.assert_array_equal(drawn, overlay(image, np.zeros_like(labels)))


def test_ids_have_colours_of_their_own() -> None:
    labels = np.arange(1, 101, dtype=np.uint32)[None].repeat(3, 0)
    drawn = overlay(np.zeros(labels.shape), labels)
    assert len(np.unique(drawn[1], axis=0)) > 90
    assert drawn.max(-1).min() > 100
    steps = np.abs(np.diff(drawn[1].astype(int), axis=0)).sum(-1)
    assert np.median(steps) > 100
    np.testing.assert_array_equal(drawn[:, :50], overlay(np.zeros((3, 50)), labels[:, :50]))


def test_contrast_is_robust() -> None:
    image = np.tile(np.arange(100, dtype=np.float32), (100, 1))
    image[0, 0], image[0, 1], image[0, 2] = 1e9, np.nan, np.inf
    drawn = overlay(image, np.zeros(image.shape, int))
    np.testing.assert_array_equal(drawn[..., 0], drawn[..., 2])
    assert abs(int(drawn[50, 50, 0]) - 128) < 5


def test_channels_have_their_colours() -> None:
    image = np.zeros((2, 30, 30), np.uint16)
    image[0, :10], image[1, 20:] = 500, 900
    none = np.zeros((30, 30), int)
    drawn = overlay(image, none, channel_colors=["FF0000", "0000FF"])
    np.testing.assert_array_equal(drawn[5, 5], [255, 0, 0])
    np.testing.assert_array_equal(drawn[25, 5], [0, 0, 255])
    assert overlay(image, none, channel_colors=["nonsense", None])[5, 5].any()
    rgb = np.random.default_rng(0).integers(0, 255, (3, 30, 30), np.uint8)
    np.testing.assert_array_equal(overlay(rgb, none), np.moveaxis(rgb, 0, -1))


@pytest.mark.parametrize(
    ("image", "labels", "said"),
    [
        (np.zeros((3, 4)), np.zeros((4, 3), int), r"\(3, 4\).*\(4, 3\)"),
        (np.zeros(4), np.zeros(4, int), "do not match"),
        (np.zeros((3, 4)), np.zeros((3, 4)), "float64"),
    ],
)
def test_overlay_refuses_what_does_not_fit(
    image: np.ndarray, labels: np.ndarray, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        overlay(image, labels)


# write_preview: where things are


def test_large_slides_get_an_overview_and_a_crop(slide: Path, tmp_path: Path) -> None:
    out = write_preview(slide, "truth", tmp_path / "out.png", max_side=900)
    picture = opened(out)
    assert out == tmp_path / "out.png"
    assert max(picture.shape) <= 900
    assert picture.shape[1] > 2.5 * picture.shape[0]
    colourful = np.ptp(picture.astype(int), axis=-1) > 60
    thirds = [part.mean() for part in np.array_split(colourful, 3, axis=1)]
    assert thirds[0] > 0.05
    assert thirds[1] < 0.01
    assert thirds[2] > 0.1
    again = write_preview(slide, "truth", out, max_side=900)
    np.testing.assert_array_equal(opened(again), picture)


def test_the_crop_is_where_borders_are(tmp_path: Path) -> None:
    labels = np.zeros((1500, 4000), np.uint32)
    labels[1000:1300, 3000:3300] = np.arange(90000).reshape(300, 300) // 64 + 1
    path = write_image(tmp_path / "i.zarr", [labels.astype(np.uint16)], "yx", [(1, 1)])
    write_labels(path, "l", [labels], "yx", [(1, 1)])
    source = module._Source(open_image(path), open_image(path / "labels/l"))
    (top, bottom), (left, right) = module._busiest(source)
    assert top <= 1000
    assert bottom >= 1300
    assert left <= 3000
    assert right >= 3300
    assert (bottom - top, right - left) == (512, 512)


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
    source = module._Source(open_image(path), open_image(path / "labels/l"))
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
    source = module._Source(open_image(path), open_image(labels))
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
    source = module._Source(open_image(path), open_image(path / "labels/l"))
    whole = ((0, 40), (0, 30))
    np.testing.assert_array_equal(source.ids(whole, (40, 30)), square(40, 30, 10, 10, 12))
    for channel in source.pixels(whole, (40, 30)):
        np.testing.assert_array_equal(channel > 450, square(40, 30, 10, 10, 12) > 0)
    opened(write_preview(path, "l", tmp_path / "out.png", max_side=300))


# write_preview: how much is read, and how it looks


def test_no_more_is_read_than_the_picture_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(40_000 >> k, 60_000 >> k) for k in range(8)]
    scales = [(2.0**k, 2.0**k) for k in range(8)]
    path = write_image(tmp_path / "i.zarr", list(shapes), "yx", scales)
    write_labels(path, "l", list(shapes), "yx", scales)
    pixels: list[int] = []
    read = Plane.read

    def counted(self: Plane, y: slice, x: slice) -> np.ndarray:
        found = read(self, y, x)
        pixels.append(found.size)
        return found

    monkeypatch.setattr(Plane, "read", counted)
    opened(write_preview(path, "l", tmp_path / "out.png"))
    assert max(pixels) < 4 * 1600 * 1600
    write_preview(path, "l", tmp_path / "out.png", region=((0, 40_000), (0, 60_000)))
    assert max(pixels) < 4 * 1600 * 1600


def test_a_large_image_of_one_level_is_shown_in_part_only(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", [(30_000, 20_000)], "yx", [(1, 1)])
    write_labels(path, "l", [(30_000, 20_000)], "yx", [(1, 1)])
    picture = opened(write_preview(path, "l", tmp_path / "out.png", max_side=400))
    assert max(picture.shape) <= 400
    with pytest.raises(InputError, match="30000 x 20000 pixels would be read"):
        write_preview(path, "l", tmp_path / "out.png", region=((0, 30_000), (0, 20_000)))


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), min_size=2, max_size=3),
    most=st.integers(200, 2000),
    legend=st.integers(0, 4),
)
def test_panels_fit_and_do_not_overlap(
    sizes: list[tuple[int, int]], most: int, legend: int
) -> None:
    high = most - module.LINE * legend
    places, (width, height) = module._layout(sizes, most, high)
    assert width <= most
    assert height <= max(high, len(sizes) * (module.LINE + module.GAP + 1) + module.GAP)
    canvas = np.zeros((height, width), int)
    for x, y, w, h in places:
        assert min(x, y, w, h) >= 1
        assert (x + w <= width) & (y + h <= height)
        canvas[y : y + h, x : x + w] += 1
    assert canvas.max() == 1


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
    classes = module._classes(open_image(path / "labels/l"))
    assert [(c.value, c.name) for c in classes] == [(2, "nucleus"), (3, "border")]
    picture = opened(write_preview(path, "l", tmp_path / "out.png", max_side=400))
    assert (picture == [0, 255, 0]).all(-1).sum() > 100
    legend = picture[-module.LINE :]
    assert (legend == [0, 255, 0]).all(-1).sum() > 100
    assert max(picture.shape) <= 400


def test_many_classes_end_in_a_number(tmp_path: Path) -> None:
    image = np.zeros((60, 60), np.uint8)
    path = write_image(tmp_path / "i.zarr", [image], "yx", [(1, 1)])
    colors = [{"label-value": k, "rgba": [k, 9, 9, 255]} for k in range(1, 100)]
    stated = {"version": "0.5", "colors": colors}
    write_labels(path, "l", [image], "yx", [(1, 1)], **{"image-label": stated})
    source = module._Source(open_image(path), open_image(path / "labels/l"))
    legend, lines = module._legend(source, 300, lambda text: 8 * len(text))
    assert legend[-1][-1] == "and 87 more"
    assert max(line for _, line, _, _ in legend) + 1 == lines
    assert max(opened(write_preview(path, "l", tmp_path / "o.png", max_side=300)).shape) <= 300


@pytest.mark.parametrize("most", [0.0012, 0.7, 1, 49.9, 50, 1234.5])
def test_scale_bars_have_round_lengths(most: float) -> None:
    length = module._round_length(most)
    assert length is not None
    assert most / 2.5 < length <= most
    digit = length / 10 ** math.floor(math.log10(length) + 1e-9)
    assert round(digit, 6) in {1, 2, 5}
    assert module._round_length(0) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 2), (5, 7)])
def test_thin_and_tiny_images(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = np.ones(shape, np.uint16)
    path = write_image(tmp_path / "i.zarr", [image], "yx", [(1, 1)])
    write_labels(path, "l", [image], "yx", [(1, 1)])
    picture = opened(write_preview(path, "l", tmp_path / "out.png", max_side=300))
    assert max(picture.shape) <= 300


# write_preview: errors


def test_labels_that_are_not_there(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no labels 'nuclei': it has truth"):
        write_preview(slide, "nuclei", tmp_path / "out.png")
    bare = write_image(tmp_path / "i.zarr", [(9, 9)], "yx", [(1, 1)])
    with pytest.raises(NotFoundError, match="it has none"):
        write_preview(bare, "nuclei", tmp_path / "out.png")
    with pytest.raises(NotFoundError, match="does not exist"):
        write_preview(tmp_path / "nowhere.zarr", "nuclei", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_labels_elsewhere_are_given_by_their_path(slide: Path, tmp_path: Path) -> None:
    within = write_preview(slide, "truth", tmp_path / "a.png", max_side=300)
    elsewhere = str(slide / "labels/truth")
    given = write_preview(slide, elsewhere, tmp_path / "b.png", max_side=300)
    np.testing.assert_array_equal(opened(within), opened(given))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_side": 10}, "at least 200"),
        ({"region": ((0, 10), (5, 5))}, "0:10, 5:5 is not inside"),
        ({"region": ((0, 10), (0, 1501))}, "1500 x 1500"),
        ({"channels": ["GFP"]}, "GFP.*DAPI"),
        ({"channels": [1]}, "DAPI"),
        ({"channels": []}, "no channel"),
    ],
)
def test_bad_requests(slide: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        write_preview(slide, "truth", tmp_path / "out.png", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.png"):
        write_preview(slide, "truth", tmp_path / "out.jpg")
    with pytest.raises(OutputError, match="no folder"):
        write_preview(slide, "truth", tmp_path / "nowhere" / "out.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        write_preview(slide, "truth", tmp_path / "folder.png")


def test_an_image_is_no_labels(tmp_path: Path) -> None:
    path = write_image(tmp_path / "i.zarr", [np.zeros((9, 9), np.float32)], "yx", [(1, 1)])
    with pytest.raises(InputError, match=r"float32.*integers"):
        write_preview(path, str(path), tmp_path / "out.png")


def test_a_broken_chunk_is_named(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (64, 64)).astype(np.uint16)
    path = write_image(tmp_path / "i.zarr", [image], "yx", [(1, 1)])
    write_labels(path, "l", [image], "yx", [(1, 1)])
    (path / "0/c/0/0").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"chunk \(0, 0\)"):
        write_preview(path, "l", tmp_path / "out.png")


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("v04_cardio_mip_labels.zarr", "nuclei"),
        ("v04_coins_labels.ome.zarr", "coins"),
        ("v05_astronaut_rgb_labels.ome.zarr", "circles"),
    ],
)
@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_real_labels(name: str, labels: str, tmp_path: Path) -> None:
    picture = opened(write_preview(REAL / name, labels, tmp_path / "out.png", max_side=600))
    assert max(picture.shape) <= 600
    assert (np.ptp(picture.astype(int), axis=-1) > 60).mean() > 0.05
