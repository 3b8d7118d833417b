"""Where results go: labels inside the image, or an image of their own.

`plan_destination` decides, refuses what cannot be, and writes nothing::

    slide.zarr/                              NEW.zarr/           --output
      labels/                                  .bigunet/         until committed
        .bigunet-nuclei/   until committed     0 1 2 …           the only kind, or probabilities
        nuclei/                                labels/
          0 1 2 …                                nuclei/         objects, or classes
          classes          of objects            nuclei-classes/ classes beside objects
        nuclei-classes/    classes beside objects
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from bigunet.errors import InputError
from bigunet.images import commit
from bigunet.images.commit import Place, label_place, output_place
from bigunet.images.consolidated import ZarrFormat
from bigunet.images.destination import Destination, read_record
from bigunet.images.ngff import Axis
from bigunet.images.output import Output, assert_disjoint_writes, read_window, write_window
from bigunet.images.pyramid import level_shapes
from bigunet.images.refusals import KINDS, check_name, check_place, check_save, unwritable
from bigunet.ledger import Record

if TYPE_CHECKING:
    from bigunet.images.open import Image

__all__ = [
    "Destination",
    "Output",
    "assert_disjoint_writes",
    "finish_interrupted",
    "label_names",
    "plan_destination",
    "plan_destinations",
    "read_window",
    "unfinished_run",
    "write_window",
]

T = TypeVar("T")
Bounds: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
PathLike: TypeAlias = str | os.PathLike[str]
Region: TypeAlias = tuple[slice, slice]


def label_names(name: str, save: Sequence[str]) -> Mapping[str, str]:
    """Return the name of each kind of label that is saved under a name.

    Examples
    --------
    >>> label_names("nuclei", ("classes", "objects")), label_names("nuclei", ("classes",))
    ({'objects': 'nuclei', 'classes': 'nuclei-classes'}, {'classes': 'nuclei'})
    """
    kinds = [kind for kind in ("objects", "classes") if kind in save]
    return {kind: f"{name}-{kind}" if place else name for place, kind in enumerate(kinds)}


def plan_destinations(
    image: Image,
    level: int,
    *,
    name: str,
    output: PathLike | None = None,
    save: Sequence[str],
    classes: int,
    **options: Any,
) -> tuple[Destination, ...]:
    """Decide where all results of a run go: every label of the image is a place of its own.

    Parameters and errors are those of `plan_destination`.
    """
    check_save(save, classes, has_output=output is not None)
    places = (
        [(name, tuple(save))]
        if output is not None
        else [(own, (kind,)) for kind, own in label_names(name, save).items()]
    )
    return tuple(
        plan_destination(
            image, level, name=own, output=output, save=kinds, classes=classes, **options
        )
        for own, kinds in places
    )


def plan_destination(
    image: Image,
    level: int,
    *,
    name: str,
    output: PathLike | None = None,
    save: Sequence[str] = ("classes",),
    overwrite: bool = False,
    chunk: tuple[int, int],
    shard: tuple[int, int] | None = None,
    classes: int,
    region: Region | None = None,
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
    save : sequence of "objects", "classes", "probabilities"
        Inside an image one kind only; see `plan_destinations`.
    overwrite : bool
        Whether a complete result of bigunet may be replaced.
    chunk : (Y, X)
        Of a chunk, in pixels.
    shard : (Y, X), optional
        Of a shard, in pixels: whole chunks. By default each chunk is a file.
    classes : int
        Number of classes: channels of the probabilities.
    region : (slice, slice), optional
        Rows and columns of `level` that the run writes; all of them by default.

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
    label = _label_output(draft, image, level, chunk, shard, region)
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


def unfinished_run(image: Image, *, name: str, output: PathLike | None = None) -> Record | None:
    """Return the record of a run that did not finish, None where there is none."""
    check_name(name)
    return read_record(_place(image, name, output))


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
    shard: tuple[int, int] | None,
    region: Region | None,
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
        shard=shard,
        dtype="uint8",
        scales=tuple((*others, y * 2**k, x * 2**k) for k in range(len(shapes))),
        translation=tuple(source.translation[i] for i in keep),
        region=_region(region, shapes[0][-2:]),
        zarr_format=draft.place.zarr_format,
    )


def _place_outputs(
    draft: Destination, label: Output, save: Sequence[str], classes: int
) -> tuple[Output, ...]:
    """Give the root to the probabilities where they are saved, to the first label else."""
    kinds = [kind for kind in KINDS if kind in save]
    root = "probabilities" if "probabilities" in save else kinds[0]
    names = label_names(draft.name, save)
    outputs = []
    for kind in kinds:
        output = _of_kind(label, kind, classes)
        if kind != root:
            inner = Path("labels", names[kind])
            output = replace(output, path=draft.root / inner, final=draft.path / inner)
        outputs.append(output)
    return tuple(outputs)


def _of_kind(label: Output, kind: str, classes: int) -> Output:
    if kind == "probabilities":
        return _with_channels(label, classes)
    # The largest that ids are going to need is not known before they are counted.
    return replace(label, kind="objects", dtype="uint32") if kind == "objects" else label


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
