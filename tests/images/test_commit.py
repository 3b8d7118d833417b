"""A run may be killed between any two steps: no half label is seen, nothing is lost.

Every change of a file system goes through one of a few calls; these tests let
the process die at each of them in turn, look at what is left like a reader
would, and run again.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ome_zarr_models
import pytest
import zarr

from bigunet.errors import OutputExistsError, RunError
from bigunet.images.destination import commit_all, create_levels
from bigunet.images.labels import finish_interrupted, plan_destinations
from bigunet.images.open import open_image
from tests.images.stores import (
    PROVENANCE,
    consolidate,
    consolidated_view,
    fill,
    metadata,
    plan,
    run,
    seen_label,
    write_image,
)

SMALL = {"y": 6, "x": 5}
CALLS = [(Path, name) for name in ("mkdir", "rename", "replace", "unlink", "touch")]
LAYOUTS = [("0.4", True), ("0.5", False), ("0.5", True)]


class Killed(BaseException):
    """The process is gone; no handler of errors sees this."""


@contextmanager
def killed_at(step: int) -> Iterator[list[str]]:
    """Die at a change of the file system; a removal of a tree dies half-way."""
    log: list[str] = []

    def dying(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return call(path, *args, **kwargs)
            log.append(f"{name} {path}")
            if len(log) - 1 == step:
                files = (
                    [p for p in Path(path).rglob("*") if p.is_file()] if name == "rmtree" else []
                )
                for file in files[: len(files) // 2 + 1]:
                    file.unlink()
                raise Killed(log[-1])
            return call(path, *args, **kwargs)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        # Its own removals are no steps.
        patch.setattr(shutil, "rmtree", dying("rmtree", quiet(shutil.rmtree)))
        for owner, name in CALLS:
            patch.setattr(owner, name, dying(name, getattr(owner, name)))
        yield log


def quiet(rmtree: Callable[..., Any]) -> Callable[..., Any]:
    return lambda path, **kwargs: rmtree(path, **kwargs)


def make_image(path: Path, version: str, consolidated: bool) -> Path:
    return write_image(path / "in.zarr", "yx", version, 2, consolidated=consolidated, sizes=SMALL)


def pattern(value: int) -> np.ndarray:
    """What `fill` writes."""
    return (np.add.outer(np.arange(6), np.arange(5)) % 2 * value).astype(np.uint8)


def whole(array: np.ndarray, *values: int) -> int:
    """Which of the runs an array is from; anything else is half a label."""
    (value,) = [v for v in values if np.array_equal(array, pattern(v))]
    return value


def check_label(image: Path, *values: int, name: str = "nuclei") -> int | None:
    """Look like every kind of reader: no half label, listed, described or consolidated."""
    folder = image / "labels" / name
    if "multiscales" in (metadata(folder) or {}):
        whole(zarr.open_array(folder / "0", mode="r")[:], *values)
        assert ome_zarr_models.open_ome_zarr(zarr.open_group(folder, mode="r"))
    if zarr.open_group(image, mode="r").metadata.consolidated_metadata is not None:
        view = consolidated_view(image)
        if f"labels/{name}" in view and folder.exists():
            whole(zarr.open_group(image, mode="r")[f"labels/{name}/0"][:], *values)
    seen = seen_label(image, name)
    return None if seen is None else whole(seen, *values)


def check_no_leftovers(folder: Path) -> None:
    hidden = [p for p in folder.rglob("*") if "bigunet" in p.name or p.suffix == ".partial"]
    assert not hidden


def each_kill(
    tmp_path: Path, prepare: Callable[[Path], Path], attempt: Callable[[Path], Any]
) -> Iterator[tuple[Path, str]]:
    """Yield what each possible death of an attempt leaves, until one gets through."""
    for step in itertools.count():
        folder = tmp_path / str(step)
        folder.mkdir()
        image = prepare(folder)
        try:
            with killed_at(step) as log:
                attempt(image)
        except Killed:
            yield image, log[-1]
        else:
            assert step > 5
            return


@pytest.mark.parametrize(("version", "consolidated"), LAYOUTS)
def test_a_killed_run_leaves_no_label_and_is_replaced_unasked(tmp_path, version, consolidated):
    for image, _ in each_kill(tmp_path, lambda p: make_image(p, version, consolidated), run):
        seen = check_label(image, 1)
        if seen is None:
            run(image, 2)
            assert check_label(image, 2) == 2
        else:
            # It was killed when its label was complete: this is said, and swept.
            with pytest.raises(OutputExistsError):
                plan(image)
            finish_interrupted(open_image(image), name="nuclei")
            assert check_label(image, 1) == 1
        if consolidated:
            assert "labels/nuclei/0" in consolidated_view(image)
        check_no_leftovers(image.parent)


@pytest.mark.parametrize(("version", "consolidated"), LAYOUTS)
def test_the_old_label_is_there_until_the_new_one_is(tmp_path, version, consolidated):
    def prepare(folder: Path) -> Path:
        image = make_image(folder, version, consolidated)
        run(image, 1)
        return image

    found = []
    for image, where in each_kill(
        tmp_path, prepare, lambda image: run(image, 2, overwrite=True, chunk=(4, 4))
    ):
        seen = check_label(image, 1, 2)
        found.append(seen)
        if seen is None:
            # Between the two renames: the next run rolls forward.
            assert where.startswith("rename")
            with pytest.raises(OutputExistsError):
                plan(image)
            assert finish_interrupted(open_image(image), name="nuclei")
            assert check_label(image, 2) == 2
        run(image, 3, overwrite=True)
        assert check_label(image, 3) == 3
        check_no_leftovers(image.parent)
    assert found.count(None) == 1
    order = [seen for seen in found if seen is not None]
    assert order == sorted(order)
    assert set(order) == {1, 2}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_recovery_may_be_killed_too(tmp_path, version):
    def attempt(image: Path) -> None:
        finish_interrupted(open_image(image), name="nuclei")
        run(image, 3, overwrite=True)

    for image, _ in each_kill(
        tmp_path, lambda p: interrupted_swap(make_image(p, version, True)), attempt
    ):
        assert check_label(image, 2, 3) in (None, 2, 3)
        finish_interrupted(open_image(image), name="nuclei")
        assert check_label(image, 2, 3) in (2, 3)
        run(image, 4, overwrite=True)
        assert check_label(image, 4) == 4
        check_no_leftovers(image.parent)


def interrupted_swap(image: Path) -> Path:
    """Make by hand what a death between the two renames leaves."""
    run(image, 2)
    labels = image / "labels"
    new = labels / ".bigunet-nuclei" / "new"
    new.parent.mkdir()
    shutil.copytree(labels / "nuclei", new)
    shutil.rmtree(labels / "nuclei")
    listing = metadata(labels)
    other = write_image(
        image.parent / "other.zarr", "yx", open_image(image).version, 2, sizes=SMALL
    )
    run(other, 1)
    shutil.move(other / "labels" / "nuclei", new.parent / "old")
    shutil.rmtree(other)
    assert listing == metadata(labels)
    return image


def test_a_complete_replacement_rolls_forward(tmp_path):
    image = interrupted_swap(make_image(tmp_path, "0.5", True))
    staging = image / "labels" / ".bigunet-nuclei"
    (staging / "old").rename(image / "labels" / "nuclei")
    assert finish_interrupted(open_image(image), name="nuclei")
    assert check_label(image, 2) == 2
    check_no_leftovers(tmp_path)


def test_a_lost_replacement_rolls_back(tmp_path):
    image = interrupted_swap(make_image(tmp_path, "0.5", False))
    (image / "labels" / ".bigunet-nuclei" / "new" / "zarr.json").unlink()
    assert finish_interrupted(open_image(image), name="nuclei")
    assert check_label(image, 1) == 1
    check_no_leftovers(tmp_path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("save", [("classes",), ("classes", "probabilities")])
def test_an_unfinished_output_is_no_image(tmp_path, version, save):
    def attempt(image: Path) -> None:
        run(image, 1, output=image.parent / "out.zarr", save=save)

    for image, _ in each_kill(tmp_path, lambda p: make_image(p, version, False), attempt):
        out = image.parent / "out.zarr"
        if check_output(out, save, 1) is None:
            run(image, 2, output=out, save=save)
            assert check_output(out, save, 2) == 2
        else:
            finish_interrupted(open_image(image), name="nuclei", output=out)
            assert check_output(out, save, 1) == 1
        check_no_leftovers(image.parent)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_old_output_is_there_until_the_new_one_is(tmp_path, version):
    save = ("classes", "probabilities")

    def prepare(folder: Path) -> Path:
        image = make_image(folder, version, False)
        run(image, 1, output=folder / "out.zarr", save=save)
        return image

    def attempt(image: Path) -> None:
        run(image, 2, output=image.parent / "out.zarr", save=save, overwrite=True)

    found = []
    for image, where in each_kill(tmp_path, prepare, attempt):
        out = image.parent / "out.zarr"
        seen = check_output(out, save, 1, 2)
        found.append(seen)
        if seen is None:
            assert where.startswith("rename")
            assert finish_interrupted(open_image(image), name="nuclei", output=out)
            assert check_output(out, save, 2) == 2
        run(image, 3, output=out, save=save, overwrite=True)
        assert check_output(out, save, 3) == 3
        check_no_leftovers(image.parent)
    assert found.count(None) == 1


def check_output(out: Path, save: tuple[str, ...], *values: int) -> int | None:
    """Look at an image of its own; a label inside it may not be half one either."""
    if "probabilities" in save and out.exists() and (out / "labels").exists():
        check_label(out, *values)
    if not out.exists() or "multiscales" not in (metadata(out) or {}):
        return None
    assert ome_zarr_models.open_ome_zarr(zarr.open_group(out, mode="r"))
    found = zarr.open_array(out / "0", mode="r")[:]
    if "probabilities" in save:
        assert check_label(out, *values) is not None
    return whole(found[0] if found.ndim == 3 else found, *values)


@pytest.mark.parametrize(("version", "consolidated"), LAYOUTS)
def test_a_list_that_names_a_lost_label_is_mended_first(tmp_path, version, consolidated):
    def prepare(folder: Path) -> Path:
        image = make_image(folder, version, consolidated)
        run(image, 1)
        shutil.rmtree(image / "labels" / "nuclei")
        return image

    for image, _ in each_kill(tmp_path, prepare, lambda image: run(image, 2)):
        check_label(image, 2)
    run(image, 3, overwrite=True)
    assert check_label(image, 3) == 3


def test_an_unlisted_label_is_replaced_only_if_asked(tmp_path):
    image = make_image(tmp_path, "0.5", False)
    run(image, 1)
    zarr.open_group(image / "labels").attrs["ome"] = {"version": "0.5", "labels": []}
    with pytest.raises(OutputExistsError, match="--overwrite"):
        plan(image)
    run(image, 2, overwrite=True)
    assert check_label(image, 2) == 2


def test_a_second_run_takes_the_place_and_the_first_says_so(tmp_path):
    image = make_image(tmp_path, "0.5", False)
    first = plan(image)
    first.create()
    second = plan(image)
    second.create()
    with pytest.raises(RunError, match="taken over"):
        fill(first)
    with pytest.raises(RunError, match="taken over"):
        first.commit(PROVENANCE)
    fill(second, 2)
    second.commit(PROVENANCE)
    assert check_label(image, 2) == 2


def test_a_refused_run_does_not_disturb_one_that_replaces(tmp_path):
    image = make_image(tmp_path, "0.5", False)
    run(image, 1)
    live = plan(image, overwrite=True)
    live.create()
    assert not finish_interrupted(open_image(image), name="nuclei")
    with pytest.raises(OutputExistsError):
        plan(image)
    fill(live, 2)
    live.commit(PROVENANCE)
    assert check_label(image, 2) == 2


def test_partial_files_are_swept(tmp_path):
    image = make_image(tmp_path, "0.4", False)
    destination = plan(image)
    destination.create()
    fill(destination)
    (destination.path / "0" / "0" / "0.abc.partial").write_bytes(b"half")
    destination.commit(PROVENANCE)
    check_no_leftovers(tmp_path)
    assert check_label(image, 1) == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_commit_that_fails_lists_nothing(tmp_path, monkeypatch, overwrite):
    image = make_image(tmp_path, "0.5", False)
    if overwrite:
        run(image, 1)
    destination = plan(image, overwrite=overwrite)
    destination.create()
    fill(destination, 2)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RunError, match=r"cannot commit .*nuclei: No space left on device"):
            destination.commit(PROVENANCE)
    assert check_label(image, 1) == (1 if overwrite else None)
    run(image, 3, overwrite=overwrite)
    assert check_label(image, 3) == 3


def test_consolidated_metadata_may_stand_in_a_group_far_above(tmp_path):
    root = tmp_path / "plate.zarr"
    zarr.create_group(root)
    zarr.create_group(root / "A")
    image = write_image(root / "A" / "1", "yx", "0.5", 2, sizes=SMALL)
    consolidate(root)
    run(image, 1)
    assert "A/1/labels/nuclei/1" in consolidated_view(root)
    assert zarr.open_group(image).metadata.consolidated_metadata is None


def run_both(image: Path, value: int = 1, *, overwrite: bool = False) -> None:
    """Write objects and classes, two labels of one run."""
    destinations = plan_destinations(
        open_image(image),
        0,
        name="nuclei",
        save=("objects", "classes"),
        chunk=(16, 8),
        classes=3,
        overwrite=overwrite,
    )
    for destination in destinations:
        destination.create()
        for output in destination.outputs:
            if output.kind == "objects":
                create_levels(output)
        fill(destination, value)
    table = np.arange(value + 1, dtype=np.uint8)
    commit_all(destinations, PROVENANCE, objects={"count": value}, object_classes=table)


def check_both(image: Path, *values: int) -> list[int | None]:
    seen = [check_label(image, *values, name=name) for name in ("nuclei", "nuclei-classes")]
    if seen[0] is not None:
        table = zarr.open_array(image / "labels" / "nuclei" / "classes", mode="r")[:]
        np.testing.assert_array_equal(table, np.arange(seen[0] + 1))
    return seen


def finish_both(image: Path) -> None:
    for name in ("nuclei", "nuclei-classes"):
        finish_interrupted(open_image(image), name=name)


def test_two_new_labels_of_a_run_appear_in_one_step(tmp_path):
    for image, _ in each_kill(tmp_path, lambda p: make_image(p, "0.4", True), run_both):
        seen = check_both(image, 1)
        assert seen in ([None, None], [1, 1])
        finish_both(image)
        assert check_both(image, 1) == seen
        run_both(image, 2, overwrite=seen != [None, None])
        assert check_both(image, 2) == [2, 2]
        check_no_leftovers(image.parent)


def test_each_of_two_replaced_labels_is_whole(tmp_path):
    def prepare(folder: Path) -> Path:
        image = make_image(folder, "0.5", False)
        run_both(image, 1)
        return image

    for image, _ in each_kill(tmp_path, prepare, lambda image: run_both(image, 2, overwrite=True)):
        check_both(image, 1, 2)
        finish_both(image)
        assert None not in check_both(image, 1, 2)
        run_both(image, 3, overwrite=True)
        assert check_both(image, 3) == [3, 3]
        check_no_leftovers(image.parent)
