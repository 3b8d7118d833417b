"""A model file as a container: written whole, and read as data from a stranger.

Nothing of a file is run, and nothing is believed before it was compared: the container,
the sizes, and each tensor.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from bigunet.errors import ModelError, OutputError

__all__ = [
    "FORMAT",
    "SIZES",
    "VERSION",
    "check_architecture",
    "check_finite",
    "check_weights",
    "plain",
    "read_content",
    "refuse",
    "write_content",
]

FORMAT = "bigunet-unet"
VERSION = 1
SIZES = ("in_channels", "classes", "width", "depth")

_ENTRIES = {"format", "version", "architecture", "card", "weights"}
# Far beyond any network in use, and small enough that no product of them overflows.
_MOST = {"in_channels": 65_536, "classes": 256, "width": 65_536, "depth": 16}
_MOST_FEATURES = 65_536


def read_content(file: Path) -> dict[str, Any]:
    """Return the content of a file of the right format and version, the rest unchecked."""
    _check_container(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile file makes torch raise
        refuse(file, "it holds more than settings and tensors, and was not opened", error)
    settings: dict[str, Any] = content if isinstance(content, dict) else {}
    written_by = settings.get("format")
    if not isinstance(written_by, str) or written_by != FORMAT:
        refuse(
            file,
            "it holds somebody else's weights; bigunet reads what bigunet.save_model wrote",
        )
    if type(settings.get("version")) is not int or settings["version"] != VERSION:
        refuse(
            file,
            f"its format has version {content.get('version')!r:.40} and this bigunet reads "
            f"{VERSION}; use the bigunet that wrote it, or a newer one",
        )
    if odd := set(settings) ^ _ENTRIES:
        refuse(file, f"entries missing or unknown: {_few(odd)}")
    return settings


def write_content(content: dict[str, Any], path: Path) -> None:
    """Write aside and rename, so that the file is the old one or the new one, whole."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder; give the name of a file")
    try:
        with aside.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, RuntimeError) as error:
        # torch turns a full disk into a RuntimeError.
        raise OutputError(f"cannot write {path}: {_one_line(error)}") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def check_architecture(values: Any, file: Path) -> tuple[dict[str, int], float]:
    """Return sizes and dropout, within what can be meant."""
    if not isinstance(values, dict) or set(values) != {*SIZES, "dropout"}:
        refuse(file, f"its architecture must name {', '.join(SIZES)} and dropout")
    for name, most in _MOST.items():
        if type(values[name]) is not int or not 1 <= values[name] <= most:
            refuse(file, f"{name} {values[name]!r:.40} is outside 1 to {most:,}")
    features = values["width"] * 2 ** values["depth"]
    if features > _MOST_FEATURES:
        refuse(
            file,
            f"width {values['width']} and depth {values['depth']} make {features:,} features; "
            f"{_MOST_FEATURES:,} are the most",
        )
    dropout = values["dropout"]
    if type(dropout) is not float or not 0 <= dropout <= 1:
        refuse(file, f"dropout {dropout!r:.40} is outside 0.0 to 1.0")
    return {name: values[name] for name in SIZES}, dropout


def check_weights(
    weights: Any, expected: Mapping[str, torch.Tensor], file: Path
) -> dict[str, torch.Tensor]:
    """Return weights that fit the expected ones by name, type and shape, finite and dense."""
    if not isinstance(weights, dict):
        refuse(file, "its weights are not a table of tensors")
    for what, names in (
        ("missing", set(expected) - set(weights)),
        ("unknown", set(weights) - set(expected)),
    ):
        if names:
            refuse(file, f"weights {what}: {_few(names)}")
    for name, like in expected.items():
        tensor = weights[name]
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            refuse(file, f"weights {name} are not a tensor")
        if tensor.dtype != torch.float32 or tensor.shape != like.shape:
            refuse(
                file,
                f"weights {name} are {_kind(tensor)}; its architecture needs {_kind(like)}",
            )
    # A view of stride 0 claims more than the file holds.
    if sum(4 * tensor.numel() for tensor in weights.values()) > file.stat().st_size:
        refuse(file, "its weights claim more bytes than the file has")
    kept = {name: plain(weights[name]) for name in expected}
    check_finite(kept, str(file))
    return kept


def check_finite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise ModelError if a weight is no number."""
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"weights {name} of {where} are not finite: its training diverged")


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as float32 on the CPU, dense, of its own memory."""
    dense: torch.Tensor = tensor.detach().to("cpu", torch.float32)
    return dense.clone(memory_format=torch.contiguous_format)


def refuse(file: Path, why: str, cause: BaseException | None = None) -> NoReturn:
    """Raise ModelError in one short line."""
    # What the file says stands in some of the reasons, and may be long or of many lines.
    raise ModelError(f"{file} is not a usable model file: {' '.join(why.split())[:300]}") from cause


def _check_container(file: Path) -> None:
    """Refuse what is not an ordinary file of torch.save, without unpickling anything."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            stored = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
            # Stored entries cannot unpack to more than they take.
            fits = stored and sum(e.file_size for e in entries) <= file.stat().st_size
            damaged = archive.testzip() if fits else None
    except PermissionError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError, RuntimeError):
        refuse(file, "it is truncated, or not a file of bigunet.save_model at all")
    names = [entry.filename.split("/", 1)[-1] for entry in entries]
    if "constants.pkl" in names or any(n.startswith(("code/", "models/")) for n in names):
        refuse(
            file,
            "it is a TorchScript or torch.export archive, which can run code when opened; "
            "bigunet reads what bigunet.save_model wrote",
        )
    if "data.pkl" not in names or not fits:
        refuse(file, "it is an archive, but not one of bigunet.save_model")
    if damaged:
        refuse(file, f"it is damaged ({damaged}); copy it again")


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _few(names: set[Any]) -> str:
    """First three of the names, each cut, and how many more."""
    shown = sorted(f"{name!r:.60}" for name in names)
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ", ".join(shown[:3]) + more


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
