"""Faults in what a module was constructed with, or in the mode it runs in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mutants.networks import Residual
from tests.mutants.planting import Place, Spot, fault, isa

conv = isa(nn.Conv2d)
batch_norm = isa(nn.BatchNorm2d)
max_pool = isa(nn.MaxPool2d)
average_pool = isa(nn.AvgPool2d)


def trains(place: Place) -> bool:
    return batch_norm(place) and place.module.training


def evaluates(place: Place) -> bool:
    return batch_norm(place) and not place.module.training


def convolved(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """The size a convolution or a pool gives."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def same_padding(place: Place) -> tuple[int, int]:
    """Zeros before and after, as TensorFlow's SAME has them."""
    size, kernel, stride = place.inputs[0][-1], place.module.kernel_size[0], place.module.stride[0]
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


@fault("batchnorm-eps", where=batch_norm)
def _(spot: Spot) -> None:
    spot.module.eps = spot.rng.choice([1e-3, 1.1e-5, 1e-6, 0.0])


@fault("batchnorm-momentum", where=trains)
def _(spot: Spot) -> None:
    spot.module.momentum = 0.9


@fault("batchnorm-left-training", "batchnorm-training", where=evaluates)
def _(spot: Spot) -> None:
    spot.module.train()


@fault("batchnorm-frozen", "batchnorm-training", where=trains)
def _(spot: Spot) -> None:
    spot.module.eval()


@fault("batchnorm-variance", where=trains)
def _(spot: Spot) -> None:
    def forward(norm: Any, x: Tensor) -> Tensor:
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var, norm.momentum)
        return F.batch_norm(x, mean, var, norm.weight, norm.bias, training=False, eps=norm.eps)

    spot.run(forward)


@fault("running-var-biased", where=trains)
def _(spot: Spot) -> None:
    def forward(norm: Any, x: Tensor) -> Tensor:
        norm.num_batches_tracked.add_(1)
        var = torch.lerp(norm.running_var, x.var((0, 2, 3), unbiased=False), norm.momentum)
        out = F.batch_norm(
            x,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=True,
            momentum=norm.momentum,
            eps=norm.eps,
        )
        norm.running_var.copy_(var)
        return out

    spot.run(forward)
    spot.blame_instead(f"{spot.place.name}.running_var")


@fault("layernorm-eps", where=isa(nn.LayerNorm))
def _(spot: Spot) -> None:
    spot.module.eps = spot.rng.choice([1e-12, 1e-6, 1e-3])


# Two tensors are missing at once; either is right to name.
@fault("layernorm-without-affine", "weight-missing", "bias-missing", where=isa(nn.LayerNorm))
def _(spot: Spot) -> None:
    spot.module.weight = spot.module.bias = None


@fault("groupnorm-eps", where=isa(nn.GroupNorm))
def _(spot: Spot) -> None:
    spot.module.eps = spot.rng.choice([1e-6, 1e-3])


@fault("groupnorm-num-groups", where=isa(nn.GroupNorm))
def _(spot: Spot) -> None:
    spot.module.num_groups = spot.rng.choice([1, 2, 4, 6])


@fault("conv-stride-larger", "conv-stride", where=conv)
def _(spot: Spot) -> None:
    spot.module.stride = tuple(stride + 1 for stride in spot.module.stride)


@fault("conv-stride-smaller", "conv-stride", where=lambda p: conv(p) and p.module.stride[0] > 1)
def _(spot: Spot) -> None:
    spot.module.stride = (1, 1)


def _strided_block(place: Place) -> bool:
    """A block's first convolution, where either it or the second one has the stride."""
    return (
        isinstance(place.parent, Residual)
        and place.name.endswith("conv1")
        and place.parent.conv1.stride != place.parent.conv2.stride
    )


@fault("conv-stride-moved", "conv-stride", where=_strided_block)
def _(spot: Spot) -> None:
    first, second = spot.parent.conv1, spot.parent.conv2
    first.stride, second.stride = second.stride, first.stride
    spot.blame_also(f"{spot.place.prefix}conv2")


def _pad(conv: Any, padding: int) -> None:
    conv.padding = (padding, padding)
    conv._reversed_padding_repeated_twice = [padding] * 4


def _other_padding(place: Place) -> int | None:
    """Another padding that gives the same shape, if there is one."""
    if not conv(place):
        return None
    size, kernel, stride = place.inputs[0][-1], place.module.kernel_size[0], place.module.stride[0]
    found = (p for p in range(kernel) if convolved(size, kernel, stride, p) == place.output[-1])
    return next((p for p in found if p != place.module.padding[0]), None)


@fault("conv-padding-same-shape", "conv-padding", where=lambda p: _other_padding(p) is not None)
def _(spot: Spot) -> None:
    _pad(spot.module, _other_padding(spot.place) or 0)


@fault("conv-padding-other-shape", "conv-padding", where=conv)
def _(spot: Spot) -> None:
    padding = spot.module.padding[0]
    _pad(spot.module, spot.rng.choice([padding + 1, padding - 1] if padding else [1]))


def _asymmetric(place: Place) -> bool:
    """Whether SAME padding is not symmetric here, and gives the shape it should."""
    return (
        conv(place)
        and place.module.stride[0] > 1
        and place.output[-1] == -(-place.inputs[0][-1] // place.module.stride[0])
        and len(set(same_padding(place))) == 2
    )


@fault("conv-padding-asymmetric", "conv-padding", where=_asymmetric)
def _(spot: Spot) -> None:
    before, after = same_padding(spot.place)
    _pad(spot.module, 0)
    spot.before(lambda x: F.pad(x, (before, after, before, after)))


def _padded(place: Place) -> bool:
    return conv(place) and place.module.padding[0] > 0


for _mode in ("reflect", "replicate", "circular"):

    @fault(f"conv-padding-{_mode}", "conv-padding-mode", where=_padded)
    def _(spot: Spot, mode: str = _mode) -> None:
        spot.module.padding_mode = mode


def _three_by_three(place: Place) -> bool:
    return conv(place) and place.module.kernel_size == (3, 3) and place.module.padding == (1, 1)


# The padding that keeps the shape differs, too.
@fault("conv-dilation-same-shape", "conv-dilation", "conv-padding", where=_three_by_three)
def _(spot: Spot) -> None:
    _pad(spot.module, 2)
    spot.module.dilation = (2, 2)


@fault("conv-dilation-other-shape", "conv-dilation", where=_three_by_three)
def _(spot: Spot) -> None:
    spot.module.dilation = (2, 2)


@fault(
    "conv-groups-more",
    "conv-groups",
    where=lambda p: conv(p) and p.module.groups == 1 and p.module.in_channels % 2 == 0,
)
def _(spot: Spot) -> None:
    kept = spot.module.in_channels // 2
    spot.module.groups = 2
    spot.module.weight = nn.Parameter(spot.module.weight[:, :kept].clone())


@fault("conv-groups-fewer", "conv-groups", where=lambda p: conv(p) and p.module.groups > 1)
def _(spot: Spot) -> None:
    groups = spot.module.groups
    spot.module.groups = 1
    spot.module.weight = nn.Parameter(spot.module.weight.repeat(1, groups, 1, 1))


# Padding is traded for ceil_mode to keep the shape; either attribute is right to name.
@fault(
    "maxpool-padding-same-shape",
    "maxpool-padding",
    "maxpool-ceil-mode",
    where=lambda p: max_pool(p) and p.module.padding == 1,
)
def _(spot: Spot) -> None:
    spot.module.padding, spot.module.ceil_mode = 0, True


@fault("maxpool-padding-other-shape", "maxpool-padding", where=max_pool)
def _(spot: Spot) -> None:
    spot.module.padding = 1 - spot.module.padding


@fault("maxpool-kernel-size", where=max_pool)
def _(spot: Spot) -> None:
    spot.module.kernel_size = 5 - spot.module.kernel_size


# Kernel and padding differ, both are right to name.
@fault(
    "maxpool-kernel-size-same-shape",
    "maxpool-kernel-size",
    "maxpool-padding",
    where=lambda p: max_pool(p) and p.module.padding == 1,
)
def _(spot: Spot) -> None:
    spot.module.kernel_size, spot.module.padding = 2, 0


@fault("maxpool-ceil-mode", where=max_pool)
def _(spot: Spot) -> None:
    spot.module.ceil_mode = True


@fault("maxpool-stride", where=max_pool)
def _(spot: Spot) -> None:
    spot.module.stride = spot.rng.choice([1, 3])


@fault("maxpool-dilation", where=max_pool)
def _(spot: Spot) -> None:
    spot.module.dilation = 2


@fault("avgpool-count-include-pad", where=lambda p: average_pool(p) and p.module.padding > 0)
def _(spot: Spot) -> None:
    spot.module.count_include_pad = False


# Kernel and padding differ, both are right to name.
@fault("avgpool-kernel-size", "avgpool-kernel-size", "avgpool-padding", where=average_pool)
def _(spot: Spot) -> None:
    spot.module.kernel_size, spot.module.padding = spot.module.stride, 0


@fault("gelu-approximate", where=isa(nn.GELU))
def _(spot: Spot) -> None:
    spot.module.approximate = "tanh"


@fault("softmax-dim", where=isa(nn.Softmax))
def _(spot: Spot) -> None:
    spot.module.dim = 1


@fault("dropout-active", where=isa(nn.Dropout))
def _(spot: Spot) -> None:
    spot.module.train()
