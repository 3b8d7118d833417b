"""Where results go: labels inside the image, or an image of their own.

`plan_destination` decides, refuses what cannot be, and writes nothing::

    slide.zarr/                              NEW.zarr/           --output
      labels/                                  .bigunet/         until committed
        .bigunet-nuclei/   until committed     0 1 2 …           probabilities, or classes
        nuclei/                                labels/nuclei/    classes, if both are saved
          0 1 2 …
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from bigunet.errors import InputError
from bigunet.images import commit
from bigunet.images.commit import Place, label_place, output_place
from bigunet.images.consolidated import ZarrFormat
from bigunet.images.destination import Destination
from bigunet.images.ngff import Axis
from bigunet.images.output import Output, assert_disjoint_writes, read_window, write_window
from bigunet.images.pyramid import level_shapes
from bigunet.images.refusals import check_name, check_place, check_save, unwritable

if TYPE_CHECKING:
    from bigunet.images.open import Image

__all__ = [
    "Destination",
    "Output",
    "assert_disjoint_writes",
    "finish_interrupted",
    "plan_destination",
    "read_window",
    "write_window",
]

T = TypeVar("T")
Bounds: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
PathLike: TypeAlias = str | os.PathLike[str]
Region: TypeAlias = tuple[slice, slice]


def plan_destination(
    image: Image,
    level: int,
    *,
    name: str,
    output: PathLike | None = None,
    save: Sequence[str] = ("classes",),
    overwrite: bool = False,
    chunk: tuple[int, int],
    classes: int,
    region: Region | None = None,
    dtype: str = "uint8",
) -> Destination:
    """Decide where results go and refuse what cannot be; nothing is written.

    Parameters
    ----------
    image : Image
        The source. Results keep its NGFF version, or have 0.4 where it is older.
    level : int
        The level that is segmented: level 0 of the result.
    name : str
        Of the label.
    output : path, optional
        A Zarr of its own for the results, instead of ``labels`` of the image.
    save : sequence of "classes", "probabilities"
    overwrite : bool
        Whether a complete result of bigunet may be replaced.
    chunk : (Y, X)
        Write unit, in pixels.
    classes : int
        Number of classes: channels of the probabilities.
    region : (slice, slice), optional
        Rows and columns of `level` that the run writes; all of them by default.
    dtype : str
        Of the class map; unsigned.

    Raises
    ------
    InputError
        If an option cannot be used as given.
    OutputExistsError
        If there is a result, or anything else, that may not be replaced.
    OutputError
        If the place cannot be written to.
    """
    check_name(name)
    check_save(save, classes, has_output=output is not None)
    place = _place(image, name, output)
    check_place(place, Path(image.path).resolve(), name, overwrite=overwrite)
    draft = Destination(
        name=name,
        place=place,
        run=uuid.uuid4().hex,
        replaces=commit.is_visible(place) or commit.is_interrupted(place),
        source=_relative(Path(image.path).resolve(), place.target),
        outputs=(),
    )
    label = _label_output(draft, image, level, chunk, region, dtype)
    return replace(draft, outputs=_place_outputs(draft, label, save, classes))


def finish_interrupted(image: Image, *, name: str, output: PathLike | None = None) -> bool:
    """Finish a commit that was killed after its result was complete; True where it was.

    To be called before `plan_destination`, unless nothing may be written.

    Raises
    ------
    OutputError
        If the place cannot be written to.
    """
    check_name(name)
    place = _place(image, name, output)
    try:
        return commit.recover(place)
    except OSError as error:
        raise unwritable(place, error.strerror or str(error)) from error


def _place(image: Image, name: str, output: PathLike | None) -> Place:
    zarr_format: ZarrFormat = 3 if image.zarr_format == 3 else 2
    if output is None:
        return label_place(Path(image.path).absolute(), name, zarr_format)
    return output_place(Path(output).expanduser().resolve(), zarr_format)


def _label_output(
    draft: Destination,
    image: Image,
    level: int,
    chunk: tuple[int, int],
    region: Region | None,
    dtype: str,
) -> Output:
    """Plan a label for a level: the image's axes without c, and as many levels as the image."""
    source = image.levels[level]
    keep = [i for i, axis in enumerate(image.axes) if axis.name != "c"]
    shapes = level_shapes(tuple(source.shape[i] for i in keep), len(image.levels))
    *others, y, x = (source.scale[i] for i in keep)
    return Output(
        kind="classes",
        path=draft.root,
        final=draft.path,
        mark=draft.place.mark(draft.run),
        axes=tuple(image.axes[i] for i in keep),
        shapes=shapes,
        chunk=chunk,
        dtype=dtype,
        scales=tuple((*others, y * 2**k, x * 2**k) for k in range(len(shapes))),
        translation=tuple(source.translation[i] for i in keep),
        region=_region(region, shapes[0][-2:]),
        zarr_format=draft.place.zarr_format,
    )


def _place_outputs(
    draft: Destination, label: Output, save: Sequence[str], classes: int
) -> tuple[Output, ...]:
    """Give the root to the probabilities where they are saved, to the classes else."""
    if "probabilities" not in save:
        return (label,)
    image = _with_channels(label, classes)
    if "classes" not in save:
        return (image,)
    inner = Path("labels", draft.name)
    return replace(label, path=draft.root / inner, final=draft.path / inner), image


def _with_channels(label: Output, channels: int) -> Output:
    at = 1 if label.axis_names.startswith("t") else 0

    def insert(values: tuple[T, ...], value: T) -> tuple[T, ...]:
        return (*values[:at], value, *values[at:])

    return replace(
        label,
        kind="probabilities",
        axes=insert(label.axes, Axis(name="c", type="channel")),
        shapes=tuple(insert(shape, channels) for shape in label.shapes),
        dtype="uint8",
        scales=tuple(insert(scale, 1.0) for scale in label.scales),
        translation=insert(label.translation, 0.0),
    )


def _region(region: Region | None, shape: tuple[int, ...]) -> Bounds:
    rows, columns = region or (slice(0, shape[0]), slice(0, shape[1]))
    for part, size in ((rows, shape[0]), (columns, shape[1])):
        if not 0 <= part.start < part.stop <= size:
            raise InputError(f"the region {part.start}:{part.stop} is not inside 0:{size}")
    return (rows.start, rows.stop), (columns.start, columns.stop)


def _relative(source: Path, target: Path) -> str:
    try:
        return Path(os.path.relpath(source, target)).as_posix() + "/"
    except ValueError:  # another drive of Windows
        return source.as_posix() + "/"
