"""Model files: configuration and weights in one file that runs nothing when it is read.

A file is what ``torch.save`` makes of a plain dictionary::

    format        "bigunet-unet"
    version       1
    architecture  in_channels, classes, width, depth, dropout
    card          the fields of ModelCard
    weights       name -> float32 tensor

It is read with ``weights_only=True``, and only after the container was found to
be an ordinary, undamaged one: pickles, TorchScript and torch.export archives are
never opened. Sizes are compared with the tensors before a network is built, so
that a file can take no more memory than it has bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from bigunet.errors import BigunetError, InputError, ModelError, NotFoundError, OutputError
from bigunet.images.intensity import IntensityRule, as_rule
from bigunet.models.card import ModelCard
from bigunet.models.unet import UNet

__all__ = ["ModelCard", "find_model", "load_model", "model_digest", "save_model", "shipped_models"]

FORMAT = "bigunet-unet"
VERSION = 1
WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the models that ship."""

_ENTRIES = {"format", "version", "architecture", "card", "weights"}
_SIZES = ("in_channels", "classes", "width", "depth")
# Far beyond any network in use, and small enough that no product of them overflows.
_MOST = {"in_channels": 65_536, "classes": 256, "width": 65_536, "depth": 16}
_MOST_FEATURES = 65_536


def save_model(
    model: UNet,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    class_colors: Sequence[str] | None = None,
    intensity: IntensityRule | str | Sequence[float] | None = None,
    pixel_size: float | None = None,
    gap: int | None = None,
) -> None:
    """Write a network and what belongs to it into one file.

    What is not given is taken from ``model.card``; a bare network's says to
    normalise nothing. The model itself is left as it is. The file is written aside
    and renamed, so that a file of this name is the old one or the new one, whole.

    Parameters
    ----------
    model : UNet
    path : path
        An existing file is replaced. Its folder has to exist.
    name : str
        Name of the model, and of the labels it makes.
    class_names, class_colors : sequence of str
        One per class; colours as ``#rrggbb``.
    intensity : IntensityRule, "range", "percentile" or (lo, hi)
    pixel_size : float
        Micrometres.
    gap : int
        Background pixels that training put between touching objects.

    Raises
    ------
    InputError
        Settings that do not fit, or something else than a UNet.
    ModelError
        Weights that are not finite.
    OutputError
        A place that cannot be written to.
    """
    if not isinstance(model, UNet):
        raise InputError(f"save_model takes a bigunet.UNet, not {type(model).__name__}")
    given: dict[str, Any] = {
        "name": name,
        "class_names": class_names if class_names is None else tuple(class_names),
        "class_colors": class_colors if class_colors is None else tuple(class_colors),
        "intensity": intensity if intensity is None else as_rule(intensity),
        "pixel_size": pixel_size,
        "gap": gap,
    }
    card = replace(model.card, **{key: v for key, v in given.items() if v is not None})
    card.check_classes(model.classes)
    weights = {key: _plain(tensor) for key, tensor in model.state_dict().items()}
    _check_finite(weights, "the model")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": {**_sizes(model), "dropout": float(model.dropout.p)},
        "card": card.to_dict(),
        "weights": weights,
    }
    _write_aside(content, Path(path))


def load_model(path: str | os.PathLike[str]) -> UNet:
    """Read a model file of `save_model`, or a model that ships, by its name.

    The network is on the CPU and in eval mode: it is there to predict, and in
    train mode dropout would make its scores random. Call ``.train()`` to go on
    training.

    Parameters
    ----------
    path : path or name

    Returns
    -------
    UNet
        With the file's settings as its ``card``.

    Raises
    ------
    NotFoundError
        No such file, and no such model ships.
    ModelError
        Any other file. Nothing in it is ever run.
    """
    file = find_model(path)
    content = _read(file)
    sizes, dropout = _architecture(content["architecture"], file)
    try:
        card = ModelCard.from_dict(content["card"])
        card.check_classes(sizes["classes"])
    except BigunetError as error:
        _refuse(file, str(error), error)
    # On the meta device a network has shapes but no memory.
    with torch.device("meta"):
        model = UNet(**sizes, dropout=dropout)
    weights = _matching(content["weights"], model.state_dict(), file)
    model.load_state_dict(weights, assign=True)
    model.card = card
    return model.eval()


def model_digest(model: UNet) -> str:
    """SHA-256 of all that decides what a model computes, in hexadecimal.

    That is: its sizes, intensity rule, pixel size and border rule, and the weights
    in order as float32. Names, colours, dropout, the file it came from and the device
    do not count. Equal digests mean equal predictions.
    """
    card = model.card.to_dict()
    settings = {
        "version": VERSION,
        **_sizes(model),
        **{key: card[key] for key in ("intensity", "pixel_size", "border")},
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for key, tensor in model.state_dict().items():
        digest.update(f"\n{key} {tuple(tensor.shape)}\n".encode())
        digest.update(_plain(tensor).numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def shipped_models() -> dict[str, Path]:
    """Return the models that ship with this version: name to file."""
    return {file.stem: file for file in sorted(WEIGHTS.glob("*.pt"))}


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a path, or of the name of a model that ships.

    Raises
    ------
    NotFoundError
        Neither; the message says what ships.
    ModelError
        A folder.
    """
    path, shipped = Path(name_or_path), shipped_models()
    if path.is_file():
        return path
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the model file in it")
    names = ", ".join(shipped) or "none in this version"
    raise NotFoundError(
        f"no model file {str(name_or_path)!r}; give the path of a file that bigunet.save_model "
        f"wrote, or the name of a model that ships ({names})"
    )


def _sizes(model: UNet) -> dict[str, int]:
    return {name: int(getattr(model, name)) for name in _SIZES}


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Tensor as float32 on the CPU, dense, of its own memory."""
    plain: torch.Tensor = tensor.detach().to("cpu", torch.float32)
    return plain.clone(memory_format=torch.contiguous_format)


def _write_aside(content: dict[str, Any], path: Path) -> None:
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


def _refuse(file: Path, why: str, cause: BaseException | None = None) -> NoReturn:
    # What the file says stands in some of the reasons, and may be long or of many lines.
    raise ModelError(f"{file} is not a usable model file: {' '.join(why.split())[:300]}") from cause


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _read(file: Path) -> dict[str, Any]:
    """Content of a model file, of the right format and version, the rest unchecked."""
    _check_container(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile file makes torch raise
        _refuse(file, "it holds more than settings and tensors, and was not opened", error)
    settings: dict[str, Any] = content if isinstance(content, dict) else {}
    written_by = settings.get("format")
    if not isinstance(written_by, str) or written_by != FORMAT:
        _refuse(
            file,
            "it holds somebody else's weights; bigunet reads what bigunet.save_model wrote",
        )
    if type(settings.get("version")) is not int or settings["version"] != VERSION:
        _refuse(
            file,
            f"its format has version {content.get('version')!r:.40} and this bigunet reads "
            f"{VERSION}; use the bigunet that wrote it, or a newer one",
        )
    if odd := set(settings) ^ _ENTRIES:
        _refuse(file, f"entries missing or unknown: {_few(odd)}")
    return settings


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
        _refuse(file, "it is truncated, or not a file of bigunet.save_model at all")
    names = [entry.filename.split("/", 1)[-1] for entry in entries]
    if "constants.pkl" in names or any(n.startswith(("code/", "models/")) for n in names):
        _refuse(
            file,
            "it is a TorchScript or torch.export archive, which can run code when opened; "
            "bigunet reads what bigunet.save_model wrote",
        )
    if "data.pkl" not in names or not fits:
        _refuse(file, "it is an archive, but not one of bigunet.save_model")
    if damaged:
        _refuse(file, f"it is damaged ({damaged}); copy it again")


def _architecture(values: Any, file: Path) -> tuple[dict[str, int], float]:
    """Sizes and dropout, within what can be meant."""
    if not isinstance(values, dict) or set(values) != {*_SIZES, "dropout"}:
        _refuse(file, f"its architecture must name {', '.join(_SIZES)} and dropout")
    for name, most in _MOST.items():
        if type(values[name]) is not int or not 1 <= values[name] <= most:
            _refuse(file, f"{name} {values[name]!r:.40} is outside 1 to {most:,}")
    features = values["width"] * 2 ** values["depth"]
    if features > _MOST_FEATURES:
        _refuse(
            file,
            f"width {values['width']} and depth {values['depth']} make {features:,} features; "
            f"{_MOST_FEATURES:,} are the most",
        )
    dropout = values["dropout"]
    if type(dropout) is not float or not 0 <= dropout <= 1:
        _refuse(file, f"dropout {dropout!r:.40} is outside 0.0 to 1.0")
    return {name: values[name] for name in _SIZES}, dropout


def _matching(
    weights: Any, expected: Mapping[str, torch.Tensor], file: Path
) -> dict[str, torch.Tensor]:
    """Weights that fit the expected ones by name, type and shape, finite, each dense."""
    if not isinstance(weights, dict):
        _refuse(file, "its weights are not a table of tensors")
    for what, names in (
        ("missing", set(expected) - set(weights)),
        ("unknown", set(weights) - set(expected)),
    ):
        if names:
            _refuse(file, f"weights {what}: {_few(names)}")
    for name, like in expected.items():
        tensor = weights[name]
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            _refuse(file, f"weights {name} are not a tensor")
        if tensor.dtype != torch.float32 or tensor.shape != like.shape:
            _refuse(
                file,
                f"weights {name} are {_kind(tensor)}; its architecture needs {_kind(like)}",
            )
    # A view of stride 0 claims more than the file holds.
    if sum(4 * tensor.numel() for tensor in weights.values()) > file.stat().st_size:
        _refuse(file, "its weights claim more bytes than the file has")
    plain = {name: _plain(weights[name]) for name in expected}
    _check_finite(plain, str(file))
    return plain


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _check_finite(weights: Mapping[str, torch.Tensor], where: str) -> None:
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"weights {name} of {where} are not finite: its training diverged")


def _few(names: set[Any]) -> str:
    """First three of the names, each cut, and how many more."""
    shown = sorted(f"{name!r:.60}" for name in names)
    more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
    return ", ".join(shown[:3]) + more
