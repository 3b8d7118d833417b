"""What workers are sent; what they do with it is tested by whole runs."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from slides import constant_speed_model, write_slide

from bigunet.pipeline import plan_image
from bigunet.work import plan_predictor


def test_a_device_that_this_process_lacks_may_be_planned(tmp_path: Path) -> None:
    """As where a desk without a GPU sends work to machines that have one."""
    slide = write_slide(tmp_path / "slide.zarr", np.zeros((64, 64), np.uint8), "yx")
    plan = plan_image(slide, constant_speed_model(), device="cpu")
    absent = "mps" if torch.cuda.is_available() else "cuda"
    predictor = plan_predictor(replace(plan, device=absent), constant_speed_model())
    assert pickle.loads(pickle.dumps(predictor)).device == absent
