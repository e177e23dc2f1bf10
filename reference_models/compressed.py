"""ResNet-18 made smaller after training: pruned, and quantised to eight bits.

Both compute with the weights of the plain network and compress them as they go, so that any weights will do.
What they compute is another function on purpose. Whether it still does the task is what can be asked of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_models.blocks import BasicBlock
from reference_models.registry import register
from reference_models.resnet import ResNet

if TYPE_CHECKING:
    from collections.abc import Callable

PRUNED = 0.1
"""The share of each convolution's weights that is set to 0: those of the smallest magnitude."""

BITS = 8


def prune(weight: Tensor, share: float = PRUNED) -> Tensor:
    """`weight` with 0 for the `share` of its elements that is smallest in magnitude (Han et al., 2015).

    https://arxiv.org/abs/1506.02626. Elements as large as the largest that falls are all set to 0.
    """
    size = weight.abs()
    fallen = int(share * weight.numel())
    if not fallen:
        return weight
    limit = size.flatten().kthvalue(fallen).values
    y: Tensor = weight * (size > limit)
    return y


def quantise_weight(weight: Tensor) -> Tensor:
    """`weight` as symmetric eight-bit integers can hold it, with one scale for each output channel.

    Nagel et al., 2021 (https://arxiv.org/abs/2106.08295): the integers are -127 to 127, and the scale is the
    channel's largest magnitude over 127. A channel of zeros stays one.
    """
    most = 2 ** (BITS - 1) - 1
    largest = weight.abs().flatten(1).amax(1).clamp(min=torch.finfo(weight.dtype).tiny)
    scale = (largest / most).reshape(-1, *[1] * (weight.dim() - 1))
    y: Tensor = torch.clamp(torch.round(weight / scale), -most, most) * scale
    return y


def quantise_activation(x: Tensor) -> Tensor:
    """`x` as unsigned eight-bit integers can hold it, with one scale and one zero point for the whole tensor.

    The range is the tensor's own, widened to hold 0, so that 0 stays exact.
    """
    steps = 2**BITS - 1
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = ((high - low) / steps).clamp(min=torch.finfo(x.dtype).tiny)
    zero = torch.round(-low / scale)
    y: Tensor = (torch.clamp(torch.round(x / scale) + zero, 0, steps) - zero) * scale
    return y


class PrunedConv2d(nn.Conv2d):
    """A convolution without its smallest weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        """As `nn.Conv2d`."""
        y: Tensor = self._conv_forward(input, prune(self.weight), self.bias)
        return y


class QuantisedConv2d(nn.Conv2d):
    """A convolution of eight-bit inputs and weights, summed exactly: what integer kernels compute, in floating point.

    torch's own eight-bit tensors and kernels are deprecated and about to be removed (torch 2.15 warns at the first).
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        """As `nn.Conv2d`."""
        y: Tensor = self._conv_forward(quantise_activation(input), quantise_weight(self.weight), self.bias)
        return y


class QuantisedLinear(nn.Linear):
    """A linear layer of eight-bit inputs and weights."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch names it
        """As `nn.Linear`."""
        return F.linear(quantise_activation(input), quantise_weight(self.weight), self.bias)


def _turned(network: nn.Module, kinds: dict[type[nn.Module], type[nn.Module]]) -> None:
    """Give modules of the kinds named the forward pass of others; their tensors stay."""
    for module in network.modules():
        kind = kinds.get(type(module))
        if kind is not None:
            module.__class__ = kind


def _compressed(
    name: str, policy: str, sites: int
) -> Callable[[Callable[..., ResNet]], Callable[..., ResNet]]:
    return register(
        family=name,
        depth=18,
        baseline="torchvision:resnet18",
        parameters=11_689_512,
        gflops=1.814,
        sites=sites,
        source="those of resnet18",
        policy=policy,
    )


@_compressed("resnet_pruned", "pruned", sites=169)
def resnet18_pruned(num_classes: int = 1000) -> ResNet:
    """ResNet-18 without the smallest tenth of each convolution's weights."""
    network = ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes)
    _turned(network, {nn.Conv2d: PrunedConv2d})
    return network


@_compressed("resnet_int8", "int8", sites=614)
def resnet18_int8(num_classes: int = 1000) -> ResNet:
    """ResNet-18 with weights and inputs of convolutions and the classifier in eight bits."""
    network = ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes)
    _turned(network, {nn.Conv2d: QuantisedConv2d, nn.Linear: QuantisedLinear})
    return network
