"""How the values of a training tile vary: section 3.1's "gray value variations".

All functions take a normalised tile, (C, Y, X) float32 with about 0 to 1 inside the
limits of its image, and return another one. None looks at the pixels to decide how much
to change them.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["add_noise", "blur", "jitter_stains", "rotate_hue", "vary_contrast"]

Tile: TypeAlias = npt.NDArray[np.float32]

_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
"""Optical density of haematoxylin, eosin and DAB in red, green, blue [1]_."""
_DARKEST = 1e-3
"""Of light: what is darker has a density of 3, beyond which 8 bits say nothing."""


def vary_contrast(
    tile: Tile, gain: npt.ArrayLike, offset: npt.ArrayLike, gamma: npt.ArrayLike
) -> Tile:
    """Return ``gain * sign(v) * |v|**gamma + offset``, for each channel its own.

    Parameters
    ----------
    tile : (C, Y, X) float32 array
    gain, offset, gamma : float or (C,) array

    Returns
    -------
    (C, Y, X) float32 array
    """
    gains, offsets, gammas = (
        np.broadcast_to(np.asarray(value, np.float32), tile.shape[0])[:, None, None]
        for value in (gain, offset, gamma)
    )
    bent = tile if (gammas == 1).all() else np.copysign(np.abs(tile) ** gammas, tile)
    varied: Tile = gains * bent + offsets
    return varied


def add_noise(tile: Tile, rng: np.random.Generator, sd: float) -> Tile:
    """Return the tile with independent normal noise of standard deviation `sd`."""
    noise = rng.standard_normal(tile.shape, dtype=np.float32)
    noise *= np.float32(sd)
    noise += tile
    return noise


def blur(tile: Tile, sigma: float) -> Tile:
    """Return the tile out of focus: a Gaussian of `sigma` pixels, mirrored at the ends."""
    blurred: Tile = ndimage.gaussian_filter(tile, (0, sigma, sigma), mode="reflect", truncate=3)
    return blurred


def rotate_hue(tile: Tile, angle: float) -> Tile:
    """Turn the colours of an RGB tile around the grey axis.

    Greys stay as they are, 120 degrees exchange the channels.

    Parameters
    ----------
    tile : (3, Y, X) float32 array
    angle : float
        In radians.

    Returns
    -------
    (3, Y, X) float32 array
    """
    third, cos, sin = 1 / 3, np.cos(angle), np.sin(angle)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = cos * np.eye(3) + (1 - cos) * third + sin * cross  # Rodrigues' formula
    return _mixed(turn, tile)


def jitter_stains(tile: Tile, gain: npt.ArrayLike, offset: npt.ArrayLike) -> Tile:
    """Change how strong each stain of a bright-field RGB tile is.

    Light is taken apart into densities of haematoxylin, eosin and DAB [1]_, each is
    multiplied and added to, and light is put together again.

    Parameters
    ----------
    tile : (3, Y, X) float32 array
        1 is white.
    gain, offset : float or (3,) array
        Of the densities of the three stains; 1 and 0 change nothing but what is
        darker than 1/1000.

    Returns
    -------
    (3, Y, X) float32 array

    References
    ----------
    .. [1] A. C. Ruifrok, D. A. Johnston, "Quantification of histochemical staining by
       color deconvolution", Anal. Quant. Cytol. Histol. 23 (2001).
    """
    stains = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    to_stains = np.linalg.inv(stains.T)
    gains = np.diag(np.broadcast_to(np.asarray(gain, float), 3))
    shift = stains.T @ np.broadcast_to(np.asarray(offset, float), 3)
    density = -np.log(np.maximum(tile, np.float32(_DARKEST)))
    changed = _mixed(stains.T @ gains @ to_stains, density) + shift[:, None, None]
    light: Tile = np.exp(-changed).astype(np.float32)
    return light


def _mixed(matrix: npt.NDArray[np.float64], tile: Tile) -> Tile:
    """Return a matrix times the channels of each pixel."""
    mixed: Tile = (matrix.astype(np.float32) @ tile.reshape(3, -1)).reshape(tile.shape)
    return mixed
