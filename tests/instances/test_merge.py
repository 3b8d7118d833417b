"""The merge gives ids, sizes and values of whole objects, and little memory is enough."""

from __future__ import annotations

import itertools
import pickle
import tracemalloc

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from bigunet.instances import neighbours
from bigunet.instances.block import Runs, label_block
from bigunet.instances.merge import (
    id_dtype,
    merge_extents,
    merge_firsts,
    merge_records,
    merge_values,
)
from bigunet.instances.neighbours import as_structure, group_pairs
from tests.instances.masks import HARD, checkerboard, chunked, cut_masks, dumb_label, structures


def label_blocks(mask: da.Array, structure, **options):
    """Label every block of an array on its own, without dask."""
    values = mask.compute(scheduler="synchronous")
    slices = da.core.slices_from_chunks(mask.chunks)
    found = [
        label_block(
            values[at],
            structure,
            origin=[s.start for s in at],
            whole=values.shape,
            sizes=True,
            **options,
        )
        for at in slices
    ]
    return slices, found


@given(st.data())
def test_the_order_of_blocks_does_not_matter(data):
    mask = data.draw(cut_masks())
    structure = data.draw(structures(mask.ndim))
    slices, found = label_blocks(mask, structure)
    order = data.draw(st.permutations(range(len(found))))
    merged = merge_records([found[i][1] for i in order], structure, mask.shape)
    expected, count = ndimage.label(mask.compute(), structure)
    assert merged.count == count
    for place, i in enumerate(order):
        block = found[i][0].expand(merged.table(place, np.uint32))
        np.testing.assert_array_equal(block, expected[slices[i]])


@given(st.data())
def test_objects_are_measured_whole(data):
    mask = data.draw(cut_masks(values=3))
    structure = data.draw(structures(mask.ndim))
    _, found = label_blocks(mask, structure, by_class=True)
    records = [record for _, record in found]
    merged = merge_records(records, structure, mask.shape)
    values = mask.compute()
    expected, count = dumb_label(values, structure)
    assert merged.count == count
    pixels = [np.nonzero(expected == i + 1) for i in range(count)]
    sizes = merge_extents(records, merged)
    assert sizes.area.tolist() == [len(p[0]) for p in pixels]
    assert sizes.low.tolist() == [[c.min() for c in p] for p in pixels]
    assert sizes.high.tolist() == [[c.max() + 1 for c in p] for p in pixels]
    found_values = merge_values(records, merged)
    assert found_values.dtype == mask.dtype
    assert found_values.tolist() == [values[p][0] for p in pixels]
    first = [np.ravel_multi_index([c[0] for c in p], mask.shape) for p in pixels]
    assert merge_firsts(records, merged).tolist() == first


def test_faces_at_the_ends_of_the_array_are_not_recorded():
    _, ((_, record),) = label_blocks(chunked(HARD["full"], 100), as_structure(None, 2))
    assert [face.start.size for pair in record.faces for face in pair] == [0, 0, 0, 0]
    assert record.count == 1 and record.value is None


def test_a_face_is_a_run_for_each_object_on_it():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:7] = True
    _, found = label_blocks(chunked(mask, 4), as_structure(None, 2))
    lengths = [[f.length.tolist() for pair in r.faces for f in pair] for _, r in found]
    assert lengths[0] == [[], [2], [], [2]]
    assert lengths[3] == [[3], [], [2], []]


@given(cut_masks(values=3))
def test_runs_are_the_labels(mask):
    labels = mask.compute()
    runs = Runs.of(labels)
    assert runs.length.sum() == labels.size
    np.testing.assert_array_equal(runs.expand(np.arange(9, dtype=np.uint8)), labels)


def test_a_block_needs_its_own_piece_of_the_table():
    mask = chunked(checkerboard(40, 40), 10)
    _, found = label_blocks(mask, as_structure(None, 2))
    merged = merge_records([r for _, r in found], as_structure(None, 2), mask.shape)
    assert merged.count == 800
    table = merged.table(5, np.uint32)
    assert table.size == 51 and table[0] == 0
    assert len(pickle.dumps(table)) < 51 * 4 + 300


def test_too_many_objects_for_a_type_are_refused():
    mask = chunked(checkerboard(20, 30), 10)
    _, found = label_blocks(mask, as_structure(None, 2))
    merged = merge_records([r for _, r in found], as_structure(None, 2), mask.shape)
    assert merged.count == 300
    assert merged.table(0, np.uint16).max() <= 300
    with pytest.raises(OverflowError, match="300 objects do not fit uint8 ids"):
        merged.table(0, np.uint8)


def test_ids_are_as_wide_as_they_have_to_be():
    assert [id_dtype(n) for n in (0, 2**32 - 1, 2**32)] == [np.uint32, np.uint32, np.uint64]


def test_too_many_parts_for_a_graph_are_refused(monkeypatch):
    monkeypatch.setattr(neighbours, "_MOST_NODES", 3)
    none = np.empty(0, np.int64)
    with pytest.raises(OverflowError, match="4 parts of objects touch; at most 3"):
        group_pairs(none, none, 4)


def merge_peak(mask: da.Array, connectivity: int = 1) -> tuple[int, int, int]:
    """Return the bytes that a merge needs with its records, local labels, and face runs."""
    structure = ndimage.generate_binary_structure(mask.ndim, connectivity)
    records = [record for _, record in label_blocks(mask, structure)[1]]
    faces = [face for record in records for pair in record.faces for face in pair]
    given = sum(r.first.nbytes for r in records)
    given += sum(f.start.nbytes + f.length.nbytes + f.label.nbytes for f in faces)
    tracemalloc.start()
    merge_records(records, structure, mask.shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak + given, sum(r.count for r in records), sum(f.start.size for f in faces)


SPARE = 40_000  # bytes of Python objects that a merge of few blocks needs anyway


@pytest.mark.parametrize(
    ("mask", "size"),
    [
        (checkerboard(512, 512), 256),
        (checkerboard(256, 256), 16),
        (np.kron(checkerboard(64, 64), np.ones((4, 4))) > 0, 64),
        (np.kron(checkerboard(64, 64), np.ones((4, 4))) > 0, 18),
        (np.arange(256 * 256).reshape(256, 256) % 2 > 0, 32),
        (np.ones((256, 256), bool), 4),
        (np.random.default_rng(0).random((40, 40, 40)) < 0.3, 20),
    ],
)
def test_memory_is_bounded_by_objects_and_their_runs_on_faces(mask, size):
    for connectivity, bytes_a_run in ((1, 100), (mask.ndim, 320)):
        peak, labels, runs = merge_peak(chunked(mask, size), connectivity)
        assert peak <= 64 * labels + bytes_a_run * runs + SPARE


def test_memory_does_not_grow_with_pixels():
    small = checkerboard(40, 40)
    peaks = []
    for times in (1, 4, 16):
        large = np.kron(small, np.ones((times, times))) > 0
        peaks.append(merge_peak(chunked(large, 20 * times))[0])
    assert all(b <= a * 1.05 for a, b in itertools.pairwise(peaks))


@given(cut_masks(values=3), st.data())
def test_a_window_of_runs_is_the_window_of_labels(mask, data):
    labels = mask.compute()
    spans = []
    for size in labels.shape:
        start = data.draw(st.integers(0, size))
        spans.append(slice(start, data.draw(st.integers(start, size))))
    part = Runs.of(labels).window(*spans)
    found = part.expand(np.arange(9, dtype=labels.dtype))
    np.testing.assert_array_equal(found, labels[tuple(spans)])
