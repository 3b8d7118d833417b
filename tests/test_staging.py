"""What is staged comes back, whole or as any window, and damage is noticed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slides import identity_model, write_slide

from bigunet.errors import RunError
from bigunet.geometry import Block, Span
from bigunet.instances.block import Runs, label_block
from bigunet.instances.merge import Merged
from bigunet.instances.neighbours import plane_structure
from bigunet.pipeline import plan_image
from bigunet.plan import Plan
from bigunet.staging import Staging


def plan_of(
    folder: Path, shape: tuple[int, int], region: tuple[tuple[int, int], tuple[int, int]] | None
) -> Plan:
    slide = write_slide(folder / "s.zarr", np.zeros((2, *shape), np.uint8), "zyx")
    rules = {"fill_holes": True, "split": "distance", "max_diameter": 21}
    options = {"save": ("objects",), "tile": 16, "block": 16, "region": region} | rules
    return plan_image(slide, identity_model(2), **options)


def staged(plan: Plan, values: np.ndarray) -> Staging:
    """Stage planes (2, y, x) of the region as classes, and as labels that are ids."""
    staging = plan.staging
    assert staging is not None
    staging.output.mark.parent.mkdir(parents=True, exist_ok=True)
    staging.output.mark.touch()
    for _, at, _, block in plan.work():
        y, x = (s.slice for s in (block.y, block.x))
        for stage in ("classes", "labels"):
            staging.write(stage, at, block, Runs.of(values[at : at + 1, y, x]))
    return staging


@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    cut=st.tuples(*[st.floats(0, 1)] * 4),
    seed=st.integers(0, 9),
)
def test_windows_are_those_of_the_whole_region(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int],
    cut: tuple[float, float, float, float],
    seed: int,
) -> None:
    (y0, y1), (x0, x1) = (
        (min(int(a * n), n - 1), max(int(b * n), min(int(a * n), n - 1) + 1))
        for n, a, b in zip(shape, cut[:2], cut[2:], strict=True)
    )
    plan = plan_of(tmp_path_factory.mktemp("staged"), shape, ((y0, y1), (x0, x1)))
    values = np.random.default_rng(seed).integers(0, 3, size=(2, *shape)).astype(np.uint8)
    staging = staged(plan, values)
    blocks = list(plan.work())
    # Labels are 0, 1 and 2 in every block; each block has ids of its own for them.
    ids = np.arange(1, 2 * len(blocks) + 1)
    offsets = np.arange(0, 2 * len(blocks) + 1, 2)
    merged = Merged(count=ids.size, ids=ids, offsets=offsets)
    staging.write_ids("labels", merged)
    whole = np.zeros((2, *shape), dtype=np.int64)
    for number, at, _, block in blocks:
        assert staging.number(at, block) == number
        place = (at, block.y.slice, block.x.slice)
        whole[place] = np.where(values[place] > 0, 2 * number + values[place].astype(int), 0)
    ring = np.pad(whole, ((0, 0), (60, 60), (60, 60)))
    for _, at, _, block in blocks:
        classes, (y, x) = staging.classes(at, block)
        assert y == Span(max(block.y.start - 21, y0), min(block.y.stop + 21, y1))
        np.testing.assert_array_equal(classes[0], values[at, y.slice, x.slice])
        around = tuple(Span(s.start + 60 - 1, s.stop + 60 + 1).slice for s in (block.y, block.x))
        np.testing.assert_array_equal(staging.ids(at, block, offsets)[0], ring[(at, *around)])


def test_damage_and_a_place_taken_over_are_errors_of_one_line(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, (20, 40), None)
    staging = staged(plan, np.ones((2, 20, 40), np.uint8))
    _, _, _, block = next(plan.work())
    assert staging.read("labels", 0, block).label.tolist() == [1] * 20
    file = next(staging.output.mark.parent.glob("labels-0-0-0.npz"))
    content = file.read_bytes()
    for damaged in (content[:-9], content.replace(b"\x01", b"\x02"), b""):
        file.write_bytes(damaged)
        with pytest.raises(RunError, match=r"cannot read .*labels-0-0-0.npz: ") as caught:
            staging.read("labels", 0, block)
        assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match=r"cannot read .*labels-ids.npy"):
        staging.read_ids("labels", 0, 1)
    staging.output.mark.unlink()
    with pytest.raises(RunError, match="taken over by another run"):
        staging.write("labels", 0, Block((0, 0), Span(0, 1), Span(0, 1)), Runs.of(np.ones((1, 1))))
    assert not list(staging.output.mark.parent.glob("*.partial"))


def test_many_threads_may_read_at_once(tmp_path: Path) -> None:
    staging = staged(plan := plan_of(tmp_path, (20, 40), None), np.ones((2, 20, 40), np.uint8))
    _, at, _, block = next(plan.work())
    ones = np.ones((1, 20, 20), np.uint8)
    _, record = label_block(ones, plane_structure(3), origin=(0, 0, 0), whole=(2, 20, 40))
    written = staging.write("labels", at, block, Runs.of(ones), record)
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda _: staging.read_record("labels", at, block), range(40))
        assert {digest for _, digest in read} == {written}
