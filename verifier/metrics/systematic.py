"""The part of an error that is the same in every sample: gains and offsets of whole channels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

# Standard deviations of what independent roundings leave by chance that are taken off.
_CHANCE = 4.0
_DIMENSIONS = 4  # of images: in rows of tokens the second dimension is no channel
_FEWEST = 4  # elements of a channel that a gain and an offset can be fitted to


def systematic(exact: Tensor, found: Tensor) -> Tensor | None:
    """How far every channel of `found` is off by a gain and an offset that all samples share, relative to `exact`.

    In each sample and channel the error is fitted by an offset and a gain on `exact` (least squares). Products of the
    fits of two different samples keep what both share and cancel what is independent, as the rounding of single
    elements is; they are averaged over pairs of samples and over channels. What remains by chance is taken off: for
    each of a channel's two coefficients, the product of two independent ones has the product of their variances.

    Args:
        exact: float64 of shape (samples, channels, height, width) or more dimensions.
        found: Floating point of the same shape, on the same device.

    Returns:
        Scalar float64 on their device, an NRMSE; None where there are fewer dimensions, fewer than two samples or
        fewer than four elements a channel. 0 where nothing finite was found.
    """
    if exact.dim() < _DIMENSIONS or exact.shape != found.shape or not found.is_floating_point():
        return None
    if exact.shape[0] < 2 or not exact.shape[1] or math.prod(exact.shape[2:]) < _FEWEST:
        return None
    samples, channels = exact.shape[:2]
    x = exact.flatten(2)
    size = x.shape[2]
    error = found.to(torch.float64).flatten(2) - x
    power = x.square().mean()
    offset = error.mean(2)
    centred = x - x.mean(2, keepdim=True)
    spread = centred.square().mean(2)
    gain = torch.where(spread > 0, (error * centred).mean(2) / spread.clamp_min(1e-300), 0.0)
    pairs = samples * (samples - 1)

    def shared(values: Tensor) -> Tensor:
        """Mean over pairs of different samples of the products, for each channel."""
        return (values.sum(0).square() - values.square().sum(0)) / pairs

    common = (shared(offset) + shared(gain * spread.sqrt())).mean()
    left = (error.square().mean(2) - offset.square() - gain.square() * spread).clamp_min(0).mean(0)
    alone = left / size  # the variance of a mean error, as elements are rounded independently of each other
    chance = _CHANCE * (2 / (pairs / 2) * alone.square()).sum().sqrt() / channels
    return ((common - chance).clamp_min(0) / power).sqrt().nan_to_num(0.0, 0.0, 0.0)
