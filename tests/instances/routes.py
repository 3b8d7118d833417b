"""The route of objects over blocks in plain loops, and the dumb way over the whole array."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage

from bigunet.instances.block import label_block
from bigunet.instances.collect import Objects, merge_objects, merge_refined
from bigunet.instances.neighbours import plane_structure
from bigunet.instances.refine import refine_block
from bigunet.instances.rules import Rules
from bigunet.instances.split import split_classes
from tests.instances.masks import dumb_label
from tests.strategies import chunkings

Chunks = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Found:
    """What a way of finding objects gives."""

    ids: np.ndarray
    classes: list[int]
    area: list[int]


def objects_by_blocks(classes: np.ndarray, rules: Rules, chunks: Chunks) -> Found:
    """Follow the route that `bigunet.instances.rules` draws, block after block."""
    whole = classes.shape
    blocks = list(_blocks(chunks))
    staged = []
    for block in blocks:
        values = _values(classes, rules, block)
        origin = [span.start for span in block]
        structure = plane_structure(classes.ndim)
        staged.append(
            label_block(values, structure, origin=origin, whole=whole, by_class=True, sizes=True)
        )
    objects = merge_objects([record for _, record in staged], rules, whole)
    ids = _put(staged, objects, blocks, whole)
    if rules.refine:
        margins = [(0, 0)] * (ids.ndim - 2) + [(rules.ring, rules.ring)] * 2
        ringed = np.pad(ids, margins)
        staged = []
        for block in blocks:
            around = (*block[:-2], *(slice(s.start, s.stop + 2 * rules.ring) for s in block[-2:]))
            origin = [span.start for span in block]
            staged.append(refine_block(ringed[around], rules, origin=origin, whole=whole))
        objects = merge_refined([record for _, record in staged], objects, rules, whole)
        ids = _put(staged, objects, blocks, whole)
    return Found(ids, objects.classes[1:].tolist(), objects.area[1:].tolist())


def assert_same(found: Found, expected: Found) -> None:
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert (found.classes, found.area) == (expected.classes, expected.area)


def _values(classes: np.ndarray, rules: Rules, block: Sequence[slice]) -> np.ndarray:
    if rules.split is None:
        return classes[tuple(block)]
    window = [
        slice(max(0, span.start - rules.halo), min(size, span.stop + rules.halo))
        for span, size in zip(block[-2:], classes.shape[-2:], strict=True)
    ]
    values = split_classes(
        classes[(*block[:-2], *window)],
        origin=[*(s.start for s in block[:-2]), *(s.start for s in window)],
        whole=classes.shape,
        max_diameter=rules.halo,
    )
    inside = [
        slice(s.start - w.start, s.stop - w.start) for s, w in zip(block[-2:], window, strict=True)
    ]
    return values[(..., *inside)]


def _put(staged: Sequence, objects: Objects, blocks: Sequence, whole: Sequence[int]) -> np.ndarray:
    ids = np.empty(whole, dtype=np.int64)
    for number, block in enumerate(blocks):
        ids[block] = staged[number][0].expand(objects.table(number, np.uint32))
    return ids


def _blocks(chunks: Chunks) -> itertools.product:
    edges = [np.cumsum([0, *sizes]).tolist() for sizes in chunks]
    return itertools.product(*([slice(a, b) for a, b in itertools.pairwise(e)] for e in edges))


def objects_of_the_whole(classes: np.ndarray, rules: Rules) -> Found:
    """Find objects by scipy on the whole array, and apply the rules one object at a time."""
    ids, count = dumb_label(classes, plane_structure(classes.ndim))
    class_of = {i: int(classes[ids == i][0]) for i in range(1, count + 1)}
    ids = dumb_close_gap(ids, rules.gap)
    if rules.fill_holes:
        ids = dumb_fill_holes(ids)
    kept = [i for i in class_of if rules.kept(np.array([np.sum(ids == i)]))[0]]
    final = sum((number * (ids == i) for number, i in enumerate(kept, 1)), np.zeros_like(ids))
    areas = [int(np.sum(ids == i)) for i in kept]
    return Found(final, [class_of[i] for i in kept], areas)


def dumb_fill_holes(ids: np.ndarray) -> np.ndarray:
    """Fill each object alone, but leave what holds another one."""
    filled = ids.copy()
    for plane in np.ndindex(ids.shape[:-2]):
        for i in set(ids[plane].ravel().tolist()) - {0}:
            own = ids[plane] == i
            holes, count = ndimage.label(ndimage.binary_fill_holes(own) & ~own)
            for hole in range(1, count + 1):
                if not ids[plane][holes == hole].any():
                    filled[plane][holes == hole] = i
    return filled


def dumb_close_gap(ids: np.ndarray, gap: int) -> np.ndarray:
    """Measure the way from every background pixel to every object pixel of its plane."""
    closed = ids.copy()
    for plane in np.ndindex(ids.shape[:-2]):
        empty, solid = np.argwhere(ids[plane] == 0), np.argwhere(ids[plane] != 0)
        owner = ids[plane][ids[plane] != 0]
        ways = np.abs(empty[:, None] - solid).sum(axis=-1)
        objects = np.unique(owner)
        if gap == 0 or len(empty) == 0 or objects.size < 2:
            continue
        each = np.stack([ways[:, owner == i].min(axis=1) for i in objects], axis=1)
        nearest = objects[each.argmin(axis=1)]
        between = np.sort(each, axis=1)[:, :2].sum(axis=1) <= gap + 1
        closed[plane][tuple(empty[between].T)] = nearest[between]
    return closed


@st.composite
def class_maps(draw: st.DrawFn, most: int = 12) -> np.ndarray:
    """Draw planes of blobs of up to three classes, alone or under one or two leading axes."""
    leading = draw(st.lists(st.integers(1, 2), max_size=2))
    shape = (*leading, draw(st.integers(1, most)), draw(st.integers(1, most)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = rng.random(shape)
    smooth = ndimage.uniform_filter(noise, [1] * len(leading) + [draw(st.integers(1, 3))] * 2)
    # From nearly empty to nearly full, with values that stretch over some pixels.
    solid = smooth < np.quantile(smooth, draw(st.floats(0, 1)))
    values = ndimage.uniform_filter(rng.random(shape), [1] * len(leading) + [5, 5])
    classes = 1 + (values > np.median(values)) * draw(st.integers(0, 2))
    return (solid * classes).astype(np.uint8)


@st.composite
def cuts(draw: st.DrawFn, shape: Sequence[int]) -> Chunks:
    return tuple(draw(chunkings(size)) for size in shape)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Draw rules, none of which splits."""
    least = draw(st.integers(0, 6))
    return Rules(
        gap=draw(st.integers(0, 4)),
        fill_holes=draw(st.booleans()),
        min_area=least,
        max_area=draw(st.none() | st.integers(max(1, least), 40)),
    )
