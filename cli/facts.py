"""The facts that ``bigunet info`` prints, of images and of model files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigunet.errors import BigunetError

from .report import Result

if TYPE_CHECKING:
    from bigunet.images.open import Image

__all__ = ["ImageFacts", "LabelFacts", "ModelFacts", "describe"]

MODEL_SUFFIXES = {".pt", ".pth"}
SIZES = ("in_channels", "classes", "width", "depth")


def describe(target: str) -> Result:
    """Return the facts of a model or an image.

    Raises
    ------
    BigunetError
        Where it cannot be opened.
    """
    from bigunet.images.open import open_image, read_provenance

    if is_model(target):
        return model_facts(target)
    image = open_image(target)
    folder = image.path / "labels"
    labels = tuple(label_facts(folder, name) for name in image.labels)
    return ImageFacts(image=image, labels=labels, provenance=read_provenance(image))


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """A label of an image."""

    name: str
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    provenance: Mapping[str, Any] | None = None
    """How bigunet made it; None for labels by others."""
    error: str | None = None
    """Why a listed label cannot be opened."""

    def lines(self) -> list[str]:
        """Return the label as lines."""
        if self.error is not None:
            return [f"{self.name}: {self.error}"]
        first = f"{self.name}  {self.dtype}  {_by(self.shape)}"
        if self.provenance is None:
            return [first]
        return [f"{first}  made by bigunet:", *_indented(_pairs(self.provenance))]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What `info` says of an image."""

    image: Image
    labels: tuple[LabelFacts, ...]
    provenance: Mapping[str, Any] | None = None
    """How bigunet made it, if it is a result."""

    def lines(self) -> list[str]:
        """Return the facts as lines."""
        image = self.image
        axes = ", ".join(f"{a.name} ({a.unit})" if a.unit else a.name for a in image.axes)
        facts = [
            f"OME-Zarr {image.version} (Zarr v{image.zarr_format})",
            f"axes {axes}",
            *_block("levels", _table(_level_rows(image))),
            *_block("channels", (f"{one.index}  {one.name}" for one in image.channels)),
            *_block("made by bigunet", _pairs(self.provenance or {})),
            *_block("labels", (line for label in self.labels for line in label.lines())),
        ]
        return [str(image.path), *_indented(facts)]

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        image = self.image
        sizes = [{"pixel_size_um": image.pixel_size(i)} for i in range(len(image.levels))]
        return {
            "kind": "image",
            **asdict(image),
            "path": str(image.path),
            "levels": [asdict(one) | size for one, size in zip(image.levels, sizes, strict=True)],
            "labels": [asdict(label) for label in self.labels],
            "provenance": self.provenance,
        }


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What `info` says of a model."""

    path: str
    digest: str
    architecture: Mapping[str, Any]
    parameters: int
    margin: int
    """What the network eats on each side, in pixels."""
    card: Mapping[str, Any]
    """The configuration in the file beside the architecture."""

    def lines(self) -> list[str]:
        """Return the facts as lines."""
        facts = [
            f"digest      {self.digest}",
            f"network     U-Net, {', '.join(f'{k} {v}' for k, v in self.architecture.items())}",
            f"parameters  {self.parameters:,}",
            f"margin      {self.margin} pixels",
            *_block("card", _pairs(self._settings())),
            *_block("about", _pairs(self.card["about"])),
            *_block("scores", _pairs(self.card["scores"])),
        ]
        return [self.path, *_indented(facts)]

    def _settings(self) -> dict[str, Any]:
        """Return the entries of the card that decide something, in words."""
        card = {key: value for key, value in self.card.items() if key not in ("about", "scores")}
        if card["diameters"] is not None:
            low, high = card["diameters"]
            card["diameters"] = f"{low:.1f} to {high:.1f} pixels"
        return card

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        return {"kind": "model", **asdict(self)}


def is_model(target: str) -> bool:
    """Whether this is a model file, by its suffix, or the name of a model that ships."""
    path = Path(target)
    if path.suffix.lower() in MODEL_SUFFIXES:
        return not path.is_dir()
    if len(path.parts) > 1 or path.suffix or path.exists():
        return False
    from bigunet.models.checkpoint import shipped_models

    return target in shipped_models()


def label_facts(folder: Path, name: str) -> LabelFacts:
    """Return the facts of a listed label; one that cannot be opened is said, not raised."""
    from bigunet.images.open import open_image, read_provenance

    try:
        label = open_image(folder / name)
    except BigunetError as error:
        return LabelFacts(name=name, error=str(error))
    finest, provenance = label.levels[0], read_provenance(label)
    return LabelFacts(name=name, dtype=finest.dtype, shape=finest.shape, provenance=provenance)


def model_facts(path: str) -> ModelFacts:
    """Return the facts of a model file.

    Raises
    ------
    BigunetError
        Where it cannot be read.
    """
    from bigunet.geometry import margin
    from bigunet.models.card import default_class_names, default_colors
    from bigunet.models.checkpoint import find_model, load_model, model_digest

    model = load_model(path)
    card = model.card.to_dict()
    card["class_names"] = card["class_names"] or list(default_class_names(model.classes))
    card["class_colors"] = card["class_colors"] or list(default_colors(model.classes))
    return ModelFacts(
        path=str(find_model(path)),
        digest=model_digest(model),
        architecture={name: getattr(model, name) for name in SIZES},
        parameters=sum(weights.numel() for weights in model.parameters()),
        margin=margin(model.depth),
        card=card,
    )


def _level_rows(image: Image) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("", "path", "shape", "type", "chunks", "shards", "pixel")]
    for index, level in enumerate(image.levels):
        size = image.pixel_size(index)
        pixel = "no unit" if size is None else f"{size:.4g} µm"
        sizes = _by(level.shape), level.dtype, _by(level.chunks), _by(level.shards) or "-"
        rows.append((str(index), level.path, *sizes, pixel))
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _block(title: str, lines: Iterable[str]) -> list[str]:
    inner = _indented(lines)
    return [title, *inner] if inner else []


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _pairs(facts: Mapping[str, Any]) -> list[str]:
    width = max(map(len, facts), default=0)
    return [f"{key.ljust(width)}  {_text(value)}" for key, value in facts.items()]


def _by(sizes: Sequence[int] | None) -> str:
    return " x ".join(map(str, sizes or ()))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(f"[{_text(v)}]" if isinstance(v, list) else _text(v) for v in value)
    return str(value)
