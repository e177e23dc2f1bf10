"""Regions of networks for pictures in several writings, with options that plant a fault; channels are last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.mutants.ports.hosts import WIDTH

PICTURE = (2, 8, 8, WIDTH)


def pooled(m: Any, x: Tensor) -> Any:
    return F.avg_pool2d(x.permute(0, 3, 1, 2), 3, 1, 1, count_include_pad=False).permute(0, 2, 3, 1)


def pooled_by_sums(m: Any, x: Tensor, included: bool = False) -> Any:
    h = x.permute(0, 3, 1, 2)
    ones = torch.ones_like(h)
    total = F.avg_pool2d(h, 3, 1, 1, divisor_override=1)
    count = F.avg_pool2d(ones, 3, 1, 1, divisor_override=1)
    return (total / (9.0 if included else count)).permute(0, 2, 3, 1)


def averaged(m: Any, x: Tensor) -> Any:
    return F.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1).flatten(1)


def averaged_by_mean(dims: Any = (1, 2), op: str = "mean") -> Any:
    return lambda m, x: getattr(x, op)(dims)


def enlarged(m: Any, x: Tensor, **options: Any) -> Any:
    options = {"mode": "bilinear", "align_corners": False, **options}
    return F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, **options).permute(0, 2, 3, 1)


def enlarged_nearest(m: Any, x: Tensor) -> Any:
    return F.interpolate(x.permute(0, 3, 1, 2), scale_factor=2).permute(0, 2, 3, 1)


def enlarged_by_repeat(first: int = 1, tiled: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        if tiled:
            return x.repeat_interleave(2, 1).repeat(1, 1, 2, 1)
        return x.repeat_interleave(2, first).repeat_interleave(2, 3 - first)

    return run


def merging(m: Any, x: Tensor, order: tuple[int, ...] = (0, 1, 2, 3)) -> Any:
    parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    return m.merge(torch.cat([parts[k] for k in order], -1))


def merging_by_view(axes: tuple[int, ...] = (0, 1, 3, 4, 2, 5)) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        b, h, w, c = x.shape
        split = x.view(b, h // 2, 2, w // 2, 2, c).permute(axes)
        return m.merge(split.reshape(b, h // 2, w // 2, 4 * c))

    return run


def merging_by_unfold(m: Any, x: Tensor) -> Any:
    b, h, w, _ = x.shape
    parts = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
    return m.merge(parts.reshape(b, h // 2, w // 2, -1))


def shuffled(m: Any, x: Tensor) -> Any:
    return F.pixel_shuffle(m.gate(x).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def shuffled_by_view(axes: tuple[int, ...] = (0, 1, 4, 2, 5, 3)) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        b, h, w, _ = x.shape
        split = m.gate(x).view(b, h, w, WIDTH, 2, 2).permute(axes)
        return split.reshape(b, 2 * h, 2 * w, WIDTH)

    return run


def rolled(m: Any, x: Tensor) -> Any:
    return torch.roll(x, (-2, -2), (1, 2))


def rolled_by_cat(first: int = 2, second: int = 2) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        x = torch.cat([x[:, first:], x[:, :first]], 1)
        return torch.cat([x[:, :, second:], x[:, :, :second]], 2)

    return run


def rolled_by(steps: tuple[int, int]) -> Any:
    return lambda m, x: torch.roll(torch.roll(x, steps[0], 1), steps[1], 2)


def padded(pads: tuple[int, ...], mode: str = "constant") -> Any:
    def run(m: Any, x: Tensor) -> Any:
        return m.conv(F.pad(x.permute(0, 3, 1, 2), pads, mode)).permute(0, 2, 3, 1)

    return run


def padded_by_cat(m: Any, x: Tensor) -> Any:
    h = x.permute(0, 3, 1, 2)
    h = torch.cat([h, torch.zeros_like(h[..., :1])], 3)
    return m.conv(torch.cat([h, torch.zeros_like(h[:, :, :1])], 2)).permute(0, 2, 3, 1)


def padding(amount: int) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = F.conv2d(x.permute(0, 3, 1, 2), m.conv.weight, m.conv.bias, 2, amount)
        return h.permute(0, 2, 3, 1)

    return run
