"""Fitting a gain and an offset to each channel, whichever channel of the baseline it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from verifier.recognise.reals import sample_positions

if TYPE_CHECKING:
    from torch import Tensor

LEAST_PIXELS = 8  # fewer are fitted by chance: gains then stay at 1
EQUALLY_WELL = 1e-9


@dataclass(frozen=True, slots=True)
class Fit:
    """Candidate channel k = gain[k] * baseline channel order[k] + offset[k].

    `left` is the largest deviation, `scale` the largest magnitude of the candidate.
    """

    order: list[int]
    gain: list[float]
    offset: list[float]
    left: float
    scale: float

    def is_identity(self, accuracy: float) -> bool:
        """Whether values stay as they are, up to `accuracy` of the largest."""
        return all(abs(gain - 1) <= accuracy for gain in self.gain) and all(
            abs(offset) <= accuracy * self.scale for offset in self.offset
        )

    def is_uniform(self, accuracy: float) -> bool:
        """Whether all channels share a gain and an offset."""
        gain, offset = self.gain[0], self.offset[0]
        return all(abs(other - gain) <= accuracy * abs(gain) for other in self.gain) and all(
            abs(other - offset) <= accuracy * max(abs(gain), abs(offset)) for other in self.offset
        )


def fit_channels(candidate: Tensor, baseline: Tensor, allowed: float) -> Fit | None:
    """The best fit of images (N, C, H, W) of one shape, if it leaves at most `allowed` of the largest magnitude."""
    positions = sample_positions(baseline[:, 0].numel(), baseline.device)
    n, h, w = torch.unravel_index(positions, baseline[:, 0].shape)
    some = [tensor[n, :, h, w].T.double() for tensor in (candidate, baseline)]
    order = _order(some[0], some[1])
    screened = _fit(some[0], some[1], order)
    if not screened.left <= allowed * screened.scale:
        return None
    whole = [tensor.movedim(1, 0).reshape(len(order), -1).double() for tensor in (candidate, baseline)]
    fit = _fit(whole[0], whole[1], order)
    return fit if fit.left <= allowed * fit.scale else None


def _order(candidate: Tensor, baseline: Tensor) -> list[int]:
    """For each candidate channel the baseline's it correlates with most, its own if that is as good."""
    unit = [
        torch.nn.functional.normalize(rows - rows.mean(1, keepdim=True), dim=1)
        for rows in (candidate, baseline)
    ]
    correlation = (unit[0] @ unit[1].T).abs().nan_to_num(0)
    own = correlation.diagonal() >= correlation.amax(1) - EQUALLY_WELL
    order: list[int] = torch.where(
        own, torch.arange(len(own), device=own.device), correlation.argmax(1)
    ).tolist()
    return order if sorted(order) == list(range(len(order))) else list(range(len(order)))


def _fit(candidate: Tensor, baseline: Tensor, order: list[int]) -> Fit:
    source = baseline[order]
    mean_c, mean_b = candidate.mean(1), source.mean(1)
    centred = source - mean_b[:, None]
    spread = centred.square().sum(1)
    # the mean of a constant is off by its rounding, which is no spread
    varies = (spread > 1e-20 * source.square().sum(1)) & (spread > 0)
    if source.shape[1] < LEAST_PIXELS:
        gain, offset = torch.ones_like(mean_b), torch.zeros_like(mean_b)
    else:
        slope = (centred * (candidate - mean_c[:, None])).sum(1) / spread
        gain = torch.where(varies, slope, torch.ones_like(slope))
        offset = mean_c - gain * mean_b
    left = float((candidate - gain[:, None] * source - offset[:, None]).abs().amax())
    if bool((gain == 0).any()) or not bool(gain.isfinite().all()):
        left = math.inf  # a constant tells nothing, and no gain would undo it
    return Fit(order, gain.tolist(), offset.tolist(), left, float(candidate.abs().amax()))
