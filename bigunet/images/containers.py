"""What is at a path: the group of one image, or a line that says what to pass instead.

An image is somebody else's file and is not trusted: nothing outside its store is
read, be it by ``..``, by an absolute path or by a link.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from bigunet.errors import InputError, NotFoundError
from bigunet.images.groups import Group, Json, mapping, parse_paths, read_group

__all__ = ["check_inside", "image_group", "image_name", "inner_group", "local_folder", "store_root"]

ZIPS = {".zip", ".ozx"}
VENDOR_FILES = re.compile(
    r"(\.ome)?\.(tiff?|btf|svs|ndpis?|mrxs|scn|vms|bif|qptiff|czi|lif|lof|xlef|lsm|nd2|vsi|oi[bfr]|ims"
    r"|dv|stk|zvi|flex|dcm|jp2|jpe?g|png|bmp)",
    re.IGNORECASE,
)
"""What bioformats2raw turns into OME-Zarr."""
METADATA_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")


def local_folder(given: str) -> Path:
    """Return the folder that is meant, or refuse what is no local folder."""
    # Two letters or more: C:/ is a drive.
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]+:/", given):
        raise InputError(f"{given} is a remote address; only local paths are read: copy it first")
    path = Path(given).expanduser().absolute()
    path = path.resolve() if ".." in path.parts else path
    if path.is_dir():
        return path
    if not path.exists():
        raise NotFoundError(f"{given} does not exist")
    raise InputError(_file_refusal(given, path))


def store_root(folder: Path) -> Path:
    """Return the topmost of the Zarr groups around a folder, the folder itself if there is none."""
    root = folder
    while root.parent != root and any((root.parent / f).is_file() for f in METADATA_FILES):
        root = root.parent
    return root


def check_inside(root: Path, path: Path) -> None:
    """Refuse a path that a link leads out of the store."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise InputError(f"{path} is a link that leaves the store {root}; it is not read")


def inner_group(root: Path, folder: Path) -> Group | None:
    """Read the metadata of a group or array inside the store; None where there is neither."""
    for file in METADATA_FILES:
        check_inside(root, folder / file)
    return read_group(folder)


def image_group(root: Path, folder: Path) -> tuple[Path, Group]:
    """Return the group that has the multiscales, or say which paths would have them."""
    group = inner_group(root, folder)
    if group is None:
        raise InputError(f"{folder} is not a Zarr: it has no zarr.json and no .zgroup")
    if group.node == "array":
        raise InputError(
            f"{folder} is a plain Zarr array and not an OME-Zarr image: pass the image's group"
        )
    if "multiscales" in group.ome:
        return folder, group
    found = list(itertools.islice(_inner_images(root, folder, group), 7))
    single = "bioformats2raw.layout" in group.ome and "plate" not in group.ome
    if single and len(found) == 1:
        return image_group(root, folder / found[0])
    raise InputError(_container_refusal(folder, found))


def image_name(path: Path) -> str:
    """Name an image by its store, and by the path in it: slide.ome.zarr/0 → slide_0."""
    stores = [i for i, part in enumerate(path.parts) if part.lower().endswith(".zarr")]
    parts = path.parts[stores[-1] :] if stores else path.parts[-1:]
    stem = re.sub(r"(\.ome)?\.zarr$", "", parts[0] if parts else "", flags=re.IGNORECASE)
    return "_".join([stem.strip("/\\") or "image", *parts[1:]])


def _file_refusal(given: str, path: Path) -> str:
    if path.suffix.lower() in ZIPS:
        return f"{given} is a zipped Zarr, which is not read: unzip it and pass the folder"
    suffix = "".join(path.suffixes[-2:]) if ".ome." in path.name.lower() else path.suffix
    if VENDOR_FILES.fullmatch(suffix):
        target = f"{given.removesuffix(suffix)}.zarr"
        command = f"bioformats2raw {shlex.quote(given)} {shlex.quote(target)}"
        return f"{given} is not a Zarr; convert it with: {command}"
    return f"{given} is a file and not a Zarr: pass the folder of an OME-Zarr image"


def _container_refusal(folder: Path, found: Sequence[str]) -> str:
    if not found:
        return f"{folder} is a Zarr without multiscales metadata: it is not an OME-Zarr image"
    paths = ", ".join(str(folder / path) for path in found[:6])
    more = " and so on" if len(found) > 6 else ""
    return f"{folder} is not one image but holds some: pass one of {paths}{more}"


def _inner_images(root: Path, folder: Path, group: Group) -> Iterator[str]:
    """Yield the paths of images in a plate, a well, a bioformats2raw layout or any other group."""
    for path in _listed_paths(root, folder, group.ome):
        inner = inner_group(root, folder / path)
        if inner is not None and "multiscales" in inner.ome:
            yield path
        elif inner is not None and "well" in inner.ome:
            yield from (f"{path}/{image}" for image in _paths(inner.ome, "well", "images"))


def _listed_paths(root: Path, folder: Path, ome: Json) -> Sequence[str]:
    if "plate" in ome:
        return _paths(ome, "plate", "wells")
    if "well" in ome:
        return _paths(ome, "well", "images")
    if "bioformats2raw.layout" in ome:
        series = inner_group(root, folder / "OME")
        listed = parse_paths(series.ome.get("series")) if series else ()
        return listed or _children(folder)
    # SpatialData keeps its images in a group of that name.
    return [*_children(folder), *(f"images/{name}" for name in _children(folder / "images"))]


def _paths(ome: Json, kind: str, key: str) -> tuple[str, ...]:
    return parse_paths(mapping(ome[kind]).get(key))


def _children(folder: Path) -> list[str]:
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(names, key=lambda name: (len(name), name))
