"""How good a network is on images that it has not seen, and a picture of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from bigunet.images.overlay import overlay
from bigunet.inference import segment
from bigunet.metrics.contingency import count_pairs
from bigunet.metrics.objects import ObjectCounts, count_objects
from bigunet.models.unet import UNet
from bigunet.training.steps import Prepared, PreparedExamples
from bigunet.training.targets import instances_from_classes

__all__ = ["Score", "draw_validation", "validate"]

_PICTURES = 6
_PICTURE_SIDE = 384


@dataclass(frozen=True, kw_only=True)
class Score:
    """What validation measured, over all images together."""

    f1: float
    """Of objects at an IoU of 0.5; objects are 4-connected pixels of one class."""
    ap: float
    """Of objects, mean over IoU 0.5, 0.55 … 0.95, as the Data Science Bowl 2018 ranks."""
    ap_error: float
    """Standard error of the AP, if each true object were found or not by itself."""
    iou: float
    """Mean over classes of the IoU of their pixels."""


def validate(model: UNet, examples: PreparedExamples) -> Score:
    """Predict whole images and count objects and pixels."""
    objects = ObjectCounts()
    pixels = np.zeros((model.classes, model.classes), np.int64)
    for prepared in examples:
        found = _predicted(model, prepared)
        known = prepared.valid
        truth = np.where(known, prepared.instances, 0)
        instances = instances_from_classes(np.where(known, found, 0))
        objects += count_objects(count_pairs(truth, instances))
        pairs = prepared.class_of[truth][known].astype(np.int64) * model.classes + found[known]
        pixels += np.bincount(pairs, minlength=pixels.size).reshape(pixels.shape)
    hits = np.diag(pixels)
    union = pixels.sum(0) + pixels.sum(1) - hits
    iou = float(np.mean(hits[union > 0] / union[union > 0]))
    ap = objects.mean_ap
    # Of all thresholds as of one: an object that is found well is found at most of them.
    error = math.sqrt(ap * (1 - ap) / objects.true) if objects.true else math.nan
    return Score(f1=objects.f1[0], ap=ap, ap_error=error, iou=iou)


def draw_validation(model: UNet, examples: PreparedExamples, path: Path) -> None:
    """Write a picture of some images, what is predicted, and the truth, a row each."""
    rows = [_row(model, prepared) for prepared in islice(examples, _PICTURES)]
    if not rows:
        return
    height, width = (max(row.shape[axis] for row in rows) for axis in (0, 1))
    canvas = np.zeros((len(rows), height, width, 3), np.uint8)
    for place, row in zip(canvas, rows, strict=True):
        place[: row.shape[0], : row.shape[1]] = row
    aside = path.with_suffix(".partial")
    Image.fromarray(canvas.reshape(-1, width, 3)).save(aside, format="PNG")
    aside.replace(path)


def _row(model: UNet, prepared: Prepared) -> np.ndarray:
    """Draw a corner of an image bare, with what is predicted, and with the truth."""
    found = instances_from_classes(_predicted(model, prepared))
    crop = (slice(_PICTURE_SIDE), slice(_PICTURE_SIDE))
    image = prepared.image[(slice(None), *crop)]
    parts = [overlay(image, ids[crop]) for ids in (0 * found, found, prepared.instances)]
    return np.concatenate(parts, axis=1)


def _predicted(model: UNet, prepared: Prepared) -> np.ndarray:
    # In training the network has a bare card, so it takes the normalised pixels as they are.
    classes: np.ndarray = segment(prepared.image, model).compute(scheduler="sync")
    return classes
