"""OME-Zarr metadata: every version parsed, every lie refused in one line."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigunet.errors import InputError
from bigunet.images.groups import Group, parse_paths
from bigunet.images.ngff import Axis, Channel, parse_channels, parse_labels, parse_multiscale

YX = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]


def group(entry: Any, *, version: str | None = None, zarr_format: int = 2) -> Group:
    ome = {"multiscales": [entry]} | ({"version": version} if version else {})
    return Group(zarr_format=zarr_format, node="group", ome=ome, attributes={})


def scaled(*transformations: Any, common: Any = None, axes: Any = None) -> dict[str, Any]:
    dataset = {"path": "0", "coordinateTransformations": list(transformations)}
    entry = {"version": "0.4", "axes": axes or YX, "datasets": [dataset]}
    return entry | ({"coordinateTransformations": common} if common is not None else {})


def scale(*values: float) -> dict[str, Any]:
    return {"type": "scale", "scale": list(values)}


def translation(*values: float) -> dict[str, Any]:
    return {"type": "translation", "translation": list(values)}


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_versions_without_axes_have_all_five(version: str) -> None:
    parsed = parse_multiscale(group({"version": version, "datasets": [{"path": "0"}]}))
    assert [axis.name for axis in parsed.axes] == list("tczyx")
    assert parsed.datasets[0].scale == (1.0,) * 5
    assert not parsed.datasets[0].has_scale


def test_version_03_names_its_axes() -> None:
    entry = {"version": "0.3", "axes": ["c", "y", "x"], "datasets": [{"path": "0"}]}
    assert parse_multiscale(group(entry)).axes == (
        Axis(name="c", type="channel"),
        Axis(name="y", type="space"),
        Axis(name="x", type="space"),
    )


def test_version_05_is_read_from_the_ome_key() -> None:
    entry = {"axes": YX, "datasets": [{"path": "a/b", "coordinateTransformations": [scale(2, 3)]}]}
    parsed = parse_multiscale(group(entry, version="0.5", zarr_format=3))
    assert (parsed.version, parsed.datasets[0].path) == ("0.5", "a/b")
    assert parsed.datasets[0].scale == (2.0, 3.0)


@pytest.mark.parametrize(
    ("entry", "version"),
    [
        ({"datasets": [{"path": "0"}]}, "0.1"),
        ({"axes": ["y", "x"], "datasets": [{"path": "0"}]}, "0.3"),
        ({"axes": YX, "datasets": [{"path": "0"}]}, "0.4"),
        ({"axes": YX, "datasets": [{"path": "0"}], "version": "0.4.1"}, "0.4"),
    ],
)
def test_a_version_that_is_not_given_follows_from_the_axes(entry: Any, version: str) -> None:
    assert parse_multiscale(group(entry)).version == version


@pytest.mark.parametrize("version", ["0.6.dev1", "0.5-dev", "1.0", "nonsense"])
def test_other_versions_are_named_and_refused(version: str) -> None:
    entry = {"axes": YX, "datasets": [{"path": "0"}]}
    with pytest.raises(InputError, match=f"version '{version}' is not read"):
        parse_multiscale(group(entry, version=version, zarr_format=3))


@pytest.mark.parametrize(("version", "zarr_format"), [("0.4", 3), ("0.5", 2)])
def test_version_and_storage_must_agree(version: str, zarr_format: int) -> None:
    entry = {"axes": YX, "datasets": [{"path": "0"}], "version": version}
    with pytest.raises(InputError, match=f"{version} but is stored as Zarr v{zarr_format}"):
        parse_multiscale(group(entry, version=version, zarr_format=zarr_format))


def test_transformations_of_level_and_image_combine_in_order() -> None:
    entry = scaled(scale(2, 3), translation(1, 1), common=[scale(10, 100), translation(5, 0)])
    dataset = parse_multiscale(group(entry)).datasets[0]
    assert dataset.scale == (20, 300)
    assert dataset.translation == (15, 100)


def test_other_coordinate_systems_of_spatialdata_are_no_part_of_the_pixel_size() -> None:
    elsewhere = {"type": "affine", "affine": [[1]], "output": {"name": "global"}}
    entry = scaled(scale(2, 3), common=[{"type": "identity"}, elsewhere])
    assert parse_multiscale(group(entry)).datasets[0].scale == (2, 3)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["scale", "translation"]),
            st.tuples(*[st.floats(0.125, 8, width=16)] * 2),
        ),
        max_size=5,
    ),
    st.tuples(*[st.floats(-64, 64, width=16)] * 2),
)
def test_combined_transformation_places_every_pixel_like_the_chain(
    chain: list[tuple[str, tuple[float, float]]], pixel: tuple[float, float]
) -> None:
    """Law: scale · pixel + translation == the transformations, one after the other."""
    steps = [{"type": kind, kind: list(values)} for kind, values in chain]
    half = len(steps) // 2
    parsed = parse_multiscale(group(scaled(*steps[:half], common=steps[half:]))).datasets[0]
    expected = list(pixel)
    for kind, values in chain:
        for i, value in enumerate(values):
            expected[i] = expected[i] * value if kind == "scale" else expected[i] + value
    for i, place in enumerate(expected):
        got = parsed.scale[i] * pixel[i] + parsed.translation[i]
        assert math.isclose(got, place, rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.parametrize(
    "transformation",
    [
        scale(1),
        scale(1, 0),
        scale(-1, 1),
        scale(1, math.nan),
        scale(1, math.inf),
        scale(10**400, 1),
        {"type": "scale", "scale": ["a", "b"]},
        {"type": "scale", "scale": "ab"},
        {"type": "scale", "path": "somewhere"},
        {"type": "affine", "affine": [[1, 0, 0], [0, 1, 0]]},
        "scale",
    ],
)
def test_broken_transformations_are_refused(transformation: Any) -> None:
    with pytest.raises(InputError) as refused:
        parse_multiscale(group(scaled(transformation)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "names", ["xy", "yxc", "zcyx", "ctyx", "cy", "zx", "yyx", "qyx", "", "tczzyx", "YX"]
)
def test_axes_in_another_order_or_without_yx_are_refused(names: str) -> None:
    axes = [{"name": name} for name in names]
    with pytest.raises(InputError, match="t, c, z, y, x in this order"):
        parse_multiscale(group({"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}))


@given(st.sets(st.sampled_from("tcz")))
def test_every_subset_in_order_is_read(extra: set[str]) -> None:
    names = [name for name in "tczyx" if name in {*extra, "y", "x"}]
    entry = {"version": "0.4", "axes": [{"name": n} for n in names], "datasets": [{"path": "0"}]}
    assert [axis.name for axis in parse_multiscale(group(entry)).axes] == names


@pytest.mark.parametrize(
    "multiscales", [None, [], {}, "x", [3], [{}], [{"axes": YX, "datasets": 3}], [{"axes": 3}]]
)
def test_broken_multiscales_are_refused(multiscales: Any) -> None:
    broken = Group(zarr_format=2, node="group", ome={"multiscales": multiscales}, attributes={})
    with pytest.raises(InputError):
        parse_multiscale(broken)


def test_lists_keep_what_is_usable() -> None:
    assert parse_labels({"labels": ["cells", "../out", 3, "a/b"]}) == ("cells", "a/b")
    assert parse_labels({"labels": "cells"}) == ()
    assert parse_paths([{"path": "A/1"}, {"path": "../x"}, {}, "0", None]) == ("A/1", "0")
    assert parse_paths(7) == ()


def test_channels_take_what_omero_has() -> None:
    ome = {"omero": {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": 1}, {}, 5]}}
    assert parse_channels(ome, 5) == (
        Channel(index=0, name="DAPI", color="0000FF"),
        Channel(index=1, name="1"),
        *(Channel(index=i, name=f"channel {i}") for i in (2, 3, 4)),
    )
    assert parse_channels(ome, 1) == (Channel(index=0, name="DAPI", color="0000FF"),)
    for odd in ({}, {"omero": 3}, {"omero": {"channels": "x"}}):
        assert [c.name for c in parse_channels(odd, 2)] == ["channel 0", "channel 1"]


def test_channel_names_stay_on_one_line() -> None:
    (channel,) = parse_channels({"omero": {"channels": [{"label": "a\n\x1b[31mb"}]}}, 1)
    assert channel.name == "a  [31mb"
