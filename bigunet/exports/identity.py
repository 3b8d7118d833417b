"""Names that stay the same: a UUID for every object, made from what made it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

from bigunet.images.image import Image
from bigunet.images.open import read_provenance

__all__ = ["label_identity", "object_uuid"]

_ROOT = uuid.UUID("6a0f7c1e-93b5-4d55-8d35-2c1f0a8e4b7d")
_HOW_IT_RAN = {"version", "tile", "block", "device", "threads"}
"""Entries of a record that do not decide which objects there are."""


def label_identity(image: Image, labels: Image) -> uuid.UUID:
    """Return the UUID of a label: of the names of both, and of what made it if bigunet did."""
    made = read_provenance(labels) or {}
    facts = {
        "image": image.name,
        "label": labels.path.name,
        "made": {key: value for key, value in made.items() if key not in _HOW_IT_RAN},
    }
    return uuid.uuid5(_ROOT, json.dumps(facts, sort_keys=True))


def object_uuid(label: uuid.UUID, plane: Sequence[int], number: int) -> uuid.UUID:
    """Return the UUID of an object of a label, by its plane and id."""
    return uuid.uuid5(label, " ".join(map(str, [*plane, number])))
