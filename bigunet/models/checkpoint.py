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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bigunet.errors import BigunetError, InputError, ModelError, NotFoundError
from bigunet.images.intensity import IntensityRule, as_rule
from bigunet.models.card import ModelCard
from bigunet.models.container import (
    FORMAT,
    SIZES,
    VERSION,
    check_architecture,
    check_finite,
    check_weights,
    plain,
    read_content,
    refuse,
    write_content,
)
from bigunet.models.unet import UNet

__all__ = [
    "ModelCard",
    "describe_model",
    "find_model",
    "load_model",
    "model_digest",
    "save_model",
    "shipped_models",
]

WEIGHTS = Path(__file__).parent / "weights"
"""Folder of the models that ship."""


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
    instances: bool | None = None,
    diameters: tuple[float, float] | None = None,
    about: Mapping[str, str] | None = None,
    scores: Mapping[str, float | str] | None = None,
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
    instances : bool
        Whether it was trained on objects; `segment` then writes objects by default.
    diameters : (low, high)
        Of the objects it was trained on, in pixels.
    about : mapping
        Lines for people: `data`, `licence`, `recipe`, `note`.
    scores : mapping
        Numbers or lines for people, by what was scored.

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
        "instances": instances,
        "diameters": diameters,
        "about": about,
        "scores": scores,
    }
    card = replace(model.card, **{key: v for key, v in given.items() if v is not None})
    card.check_classes(model.classes)
    weights = {key: plain(tensor) for key, tensor in model.state_dict().items()}
    check_finite(weights, "the model")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": {**_sizes(model), "dropout": float(model.dropout.p)},
        "card": card.to_dict(),
        "weights": weights,
    }
    write_content(content, Path(path))


def describe_model(
    path: str | os.PathLike[str],
    *,
    about: Mapping[str, str] | None = None,
    scores: Mapping[str, float | str] | None = None,
) -> None:
    """Add to what a model file says to people; what it computes stays, bit for bit.

    Lines of the same heading are replaced, and an empty one is taken out, others stay.
    The file is written aside and renamed.

    Parameters
    ----------
    path : path
    about : mapping
        `data`, `licence`, `recipe`, `note`.
    scores : mapping
        Numbers or lines, by what was scored.

    Raises
    ------
    NotFoundError
        No such file.
    ModelError
        It is not a model file.
    InputError
        A heading that is not known; more than a line.
    OutputError
        A place that cannot be written to.
    """
    file = find_model(path)
    model = load_model(file)
    save_model(
        model,
        file,
        about={**model.card.about, **(about or {})},
        scores={**model.card.scores, **(scores or {})},
    )


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
    content = read_content(file)
    sizes, dropout = check_architecture(content["architecture"], file)
    try:
        card = ModelCard.from_dict(content["card"])
        card.check_classes(sizes["classes"])
    except BigunetError as error:
        refuse(file, str(error), error)
    # On the meta device a network has shapes but no memory.
    with torch.device("meta"):
        model = UNet(**sizes, dropout=dropout)
    weights = check_weights(content["weights"], model.state_dict(), file)
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
        digest.update(plain(tensor).numpy().astype("<f4", copy=False).tobytes())
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
    return {name: int(getattr(model, name)) for name in SIZES}
