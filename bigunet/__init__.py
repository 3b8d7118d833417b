"""Segment slides of any size with a U-Net, without seams.

The answer does not depend on how the slide was cut: not on chunks, block size,
workers, order, crashes or resumes.

Names are loaded when they are first used, so that ``import bigunet`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigunet.detection import objects
    from bigunet.exports.run import export_labels
    from bigunet.inference import predict, segment
    from bigunet.instances.label import label
    from bigunet.measurement.run import measure_objects
    from bigunet.metrics.evaluation import evaluate
    from bigunet.models.checkpoint import load_model, save_model
    from bigunet.models.unet import UNet
    from bigunet.pipeline import segment_image
    from bigunet.segmentation import Segmentation
    from bigunet.status import image_status
    from bigunet.training.fit import train
    from bigunet.training.weight_map import weight_map
    from bigunet.verification import Verification, verify_image

__version__ = "0.1.0"

__all__ = [
    "Segmentation",
    "UNet",
    "Verification",
    "__version__",
    "evaluate",
    "export_labels",
    "image_status",
    "label",
    "load_model",
    "measure_objects",
    "objects",
    "predict",
    "save_model",
    "segment",
    "segment_image",
    "train",
    "verify_image",
    "weight_map",
]

_HOME = {
    "Segmentation": "bigunet.segmentation",
    "UNet": "bigunet.models.unet",
    "Verification": "bigunet.verification",
    "evaluate": "bigunet.metrics.evaluation",
    "export_labels": "bigunet.exports.run",
    "image_status": "bigunet.status",
    "label": "bigunet.instances.label",
    "load_model": "bigunet.models.checkpoint",
    "measure_objects": "bigunet.measurement.run",
    "objects": "bigunet.detection",
    "predict": "bigunet.inference",
    "save_model": "bigunet.models.checkpoint",
    "segment": "bigunet.inference",
    "segment_image": "bigunet.pipeline",
    "train": "bigunet.training.fit",
    "verify_image": "bigunet.verification",
    "weight_map": "bigunet.training.weight_map",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bigunet' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
