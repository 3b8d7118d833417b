"""The hand-set network does what scipy does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage
from strategies import assert_same_scores, random_image

from benchmarks.threshold_model import BINOMIAL, threshold_model, write_threshold_model
from bigunet import load_model, predict
from bigunet.images.intensity import measure_limits, normalise


def scipy_scores(image: np.ndarray, threshold: float) -> np.ndarray:
    """Return 0 and the binomially smoothed image less the threshold."""
    smooth = image
    for _ in range(4):
        smooth = np.maximum(ndimage.correlate(smooth, BINOMIAL.numpy(), mode="reflect"), 0)
    return np.stack([np.zeros_like(smooth), smooth - threshold])


def test_it_smooths_and_thresholds_as_scipy_does() -> None:
    image = random_image((300, 280), np.float32)
    found = predict(image, threshold_model(0.15), tile=64, block=128).compute()
    # A symmetric kernel on a mirrored image gives a mirrored image: equal at the borders too.
    assert_same_scores(found, scipy_scores(image, 0.15))


def test_its_file_normalises_by_percentiles(tmp_path: Path) -> None:
    model = load_model(write_threshold_model(tmp_path / "threshold.pt"))
    assert model.card.name == "threshold" and model.card.intensity is not None
    image = random_image((90, 90), np.uint16)
    limits = measure_limits(image[None], model.card.intensity).compute()
    expected = scipy_scores(normalise(image[None], limits)[0], 0.15)
    assert_same_scores(predict(image, model).compute(), expected)
