"""What is refused is refused in one line with the way out, and nothing is written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ome_zarr_models
import pytest
import zarr

from bigunet.errors import BigunetError, InputError, OutputError, OutputExistsError, RunError
from bigunet.images.labels import finish_interrupted, plan_destination
from bigunet.images.open import open_image
from tests.images.stores import (
    plan,
    run,
    seen_label,
    write_image,
)


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def models_class(path: Path) -> str:
    return type(ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))).__name__


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "..",
        ".a",
        "a\\b",
        "a:b",
        "a?",
        " a",
        "a.",
        "con",
        "NUL.x",
        "__a",
        "a\n",
        "zarr.json",
    ],
)
def test_names_that_are_no_folder_everywhere(tmp_path, name):
    image = write_image(tmp_path / "in.zarr")
    with pytest.raises(InputError, match="no name for a label"):
        plan(image, name=name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"save": ("probabilities",)}, "--output NEW.zarr"),
        ({"save": ("classes", "outlines")}, "outlines cannot be saved"),
        ({"save": ()}, "nothing cannot be saved"),
        ({"classes": 257}, "257 classes"),
        ({"region": (slice(0, 51), slice(0, 3))}, "0:51 is not inside 0:50"),
        ({"region": (slice(4, 4), slice(0, 3))}, "4:4 is not inside 0:50"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        plan(write_image(tmp_path / "in.zarr"), **options)


def test_plans_write_nothing(tmp_path):
    image = write_image(tmp_path / "in.zarr")
    before = every_file(tmp_path)
    plan(image)
    plan(image, output=tmp_path / "out.zarr", save=("classes", "probabilities"))
    assert every_file(tmp_path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"in.zarr"}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("output", [None, "out.zarr"])
def test_complete_results_are_replaced_only_if_asked(tmp_path, version, output):
    image = write_image(tmp_path / "in.zarr", "yx", version)
    options = {} if output is None else {"output": tmp_path / output}
    run(image, 1, **options)
    before = every_file(tmp_path)
    with pytest.raises(OutputExistsError, match="--overwrite"):
        plan(image, **options)
    assert every_file(tmp_path) == before
    run(image, 2, overwrite=True, **options)
    folder = image / "labels" / "nuclei" if output is None else tmp_path / output
    assert zarr.open_array(folder / "0", mode="r")[0, 1] == 2
    assert models_class(folder) == "ImageLabel"
    left = {p.name for p in tmp_path.rglob("*") if ".bigunet" in p.name or "partial" in p.name}
    assert not left


@pytest.mark.parametrize("overwrite", [False, True])
def test_labels_of_others_are_left_alone(tmp_path, overwrite):
    image = write_image(tmp_path / "in.zarr", "yx", "0.4")
    run(image)
    zarr.open_group(image / "labels" / "nuclei").attrs.__delitem__("bigunet")
    with pytest.raises(OutputExistsError, match=r"not written by bigunet.*--name"):
        plan(image, overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_unknown_things_in_the_way_are_left_alone(tmp_path, overwrite):
    image = write_image(tmp_path / "in.zarr")
    other = image / "labels" / "nuclei"
    other.mkdir(parents=True)
    plan(image, overwrite=overwrite)
    (other / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="no result of bigunet"):
        plan(image, overwrite=overwrite)
    folder = tmp_path / "results"
    folder.mkdir()
    plan(image, output=folder, overwrite=overwrite)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"no result of bigunet.*--output"):
        plan(image, output=folder, overwrite=overwrite)
    with pytest.raises(OutputExistsError, match="is a file"):
        plan(image, output=folder / "notes.txt", overwrite=overwrite)
    with pytest.raises(OutputExistsError, match="not written by bigunet"):
        plan(image, output=write_image(tmp_path / "other.zarr"), overwrite=overwrite)


def test_an_output_with_other_labels_is_not_replaced(tmp_path):
    image = write_image(tmp_path / "in.zarr")
    out = tmp_path / "out.zarr"
    both = {"output": out, "save": ("classes", "probabilities")}
    run(image, **both)
    run(image, 2, overwrite=True, **both)
    run(out, name="mine", classes=2)
    with pytest.raises(OutputExistsError, match="also holds the label mine"):
        plan(image, overwrite=True, **both)


def test_an_output_and_its_image_are_apart(tmp_path):
    image = write_image(tmp_path / "in.zarr")
    for output in (image, image / "labels" / "x", tmp_path):
        with pytest.raises(InputError, match="lie in each other"):
            plan(image, output=output, overwrite=True)


def test_links_are_not_written_through(tmp_path):
    image = open_image(write_image(tmp_path / "in.zarr"))
    (tmp_path / "elsewhere").mkdir()
    (image.path / "labels").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"is a link.*--output"):
        plan_destination(image, 0, name="n", chunk=(8, 8), classes=2)


@pytest.mark.parametrize("content", ["file", "array", "other format", "no list"])
def test_a_labels_group_that_is_none(tmp_path, content):
    image = write_image(tmp_path / "in.zarr")
    labels = image / "labels"
    if content == "file":
        labels.write_text("")
    elif content == "array":
        zarr.create_array(labels, shape=(2,), dtype="u1")
    elif content == "other format":
        zarr.create_group(labels, zarr_format=2)
    else:
        zarr.create_group(labels, attributes={"ome": {"labels": "nuclei"}})
    with pytest.raises(OutputError, match="not a Zarr v3 group that lists labels"):
        plan(image)


READ_ONLY = """
import os, sys
from bigunet.errors import BigunetError
from bigunet.images.labels import plan_destination
from bigunet.images.open import open_image
image = open_image(sys.argv[1])
# The superuser may write everywhere; what is imported now need not be readable later.
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for output in (None, *sys.argv[2:]):
    try:
        plan_destination(image, 0, name="n", output=output, chunk=(8, 8), classes=2)
    except BigunetError as error:
        print(type(error).__name__, error)
    else:
        print("planned")
"""


@pytest.fixture
def public_path() -> Iterator[Path]:
    """Return a temporary folder that other users may look into."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="there are no users to change to")
def test_read_only_places_name_the_way_out(public_path):
    image = write_image(public_path / "in.zarr")
    closed, free = public_path / "closed", public_path / "free"
    closed.mkdir()
    free.mkdir()
    outputs = (public_path / "new.zarr", closed / "new.zarr", free / "new.zarr")
    modes = {image: 0o555, closed: 0, free: 0o777, public_path: 0o555}
    for folder, mode in modes.items():
        folder.chmod(mode)
    try:
        lines = subprocess.run(
            [sys.executable, "-c", READ_ONLY, image, *outputs],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).resolve().parents[2],
        ).stdout.splitlines()
    finally:
        for folder in modes:
            folder.chmod(0o755)
    assert lines == [
        f"OutputError {image}/labels cannot be written: no permission to write in {image}; "
        "put the result elsewhere with --output NEW.zarr",
        f"OutputError {outputs[0]} cannot be written: no permission to write in {public_path}; "
        "choose another --output",
        f"OutputError {outputs[1]} cannot be written: no permission to look into {outputs[1]}; "
        "choose another --output",
        "planned",
    ]


def test_a_place_that_turns_read_only_is_an_output_error(tmp_path, monkeypatch):
    destination = plan(write_image(tmp_path / "in.zarr"))

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"Permission denied.*--output NEW.zarr"):
        destination.create()


def test_results_that_appear_after_the_plan_are_kept(tmp_path):
    image = write_image(tmp_path / "in.zarr")
    late = plan(image)
    run(image, 3)
    with pytest.raises(OutputExistsError, match="changed since the plan"):
        late.create()
    assert seen_label(image, "nuclei")[0, 1] == 3


def test_errors_have_exit_codes(tmp_path):
    with pytest.raises(BigunetError) as caught:
        plan(write_image(tmp_path / "in.zarr"), name="..")
    assert caught.value.exit_code == 2
    assert RunError("x").exit_code == 1
    assert not finish_interrupted(open_image(tmp_path / "in.zarr"), name="n")
