"""Resizing pictures exactly, in float64: what every way to compute it is an approximation of.

Every output pixel is a weighted mean of the input pixels around its centre. The weights are a triangle's; where a
picture shrinks it is widened by the same factor (antialiasing). Rows and columns are done one after the other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy import sparse

Reals = np.ndarray[Any, np.dtype[np.float64]]


def shorter_to(size: int, height: int, width: int) -> tuple[int, int]:
    """Height and width with the shorter side `size` pixels; the longer is cut to whole pixels."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def resize_exactly(picture: Reals, height: int, width: int) -> Reals:
    """A picture (H, W, C) in another size, bilinear and antialiased, without any rounding."""
    across, down = _weights(picture.shape[1], width), _weights(picture.shape[0], height)
    rows = _apply(across, picture.astype(np.float64).transpose(1, 0, 2)).transpose(1, 0, 2)
    return _apply(down, rows)


def _apply(weights: Any, picture: Reals) -> Reals:
    """Weighted means along the first dimension."""
    flat = picture.reshape(picture.shape[0], -1)
    return np.asarray(weights @ flat).reshape(weights.shape[0], *picture.shape[1:])


def _weights(old: int, new: int) -> Any:
    """The weights as a sparse matrix, `new` x `old`, whose rows add up to 1."""
    scale = old / new
    reach = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), old)
    taps = int((last - first).max())
    places = first[:, None] + np.arange(taps)
    values = np.maximum(1 - np.abs((places - centres[:, None] + 0.5) / reach), 0)
    values[places >= last[:, None]] = 0
    values /= values.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(new), taps)
    columns = np.minimum(places, old - 1).reshape(-1)
    return sparse.csr_array((values.reshape(-1), (rows, columns)), shape=(new, old))


def whole_steps(size: int) -> int:
    """What the shorter side is resized to before a crop of `size`: 8/7 of it, 256 for 224."""
    return math.floor(size * 256 / 224 + 0.5)
