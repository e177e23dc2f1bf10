"""ResNets that differ from the published ones in one respect: biased convolutions, squeeze-and-excitation."""

from __future__ import annotations

from functools import partial

from reference_models.blocks import BasicBlock, Bottleneck, SqueezeExcitation, projection
from reference_models.registry import register
from reference_models.resnet import ResNet

SQUEEZE = "https://arxiv.org/abs/1709.01507"


@register(
    family="resnet_biased",
    depth=18,
    baseline="torchvision:resnet18",
    parameters=11_694_312,
    gflops=1.814,
    sites=69,
    source="an article on re-implementing ResNet-18, whose convolutions have torch's default bias",
)
def resnet18_biased(num_classes: int = 1000) -> ResNet:
    """ResNet-18 with a bias in each of its 20 convolutions: 4,800 numbers more, all zero at first.

    The norm after each convolution subtracts what a bias adds in training, so it changes nothing that could be
    learnt.
    """
    block = partial(BasicBlock, bias=True, shortcut=partial(projection, bias=True))
    return ResNet(block, (2, 2, 2, 2), num_classes=num_classes, bias=True)


@register(
    family="se_resnet",
    depth=18,
    baseline="baseline:se_resnet18",
    parameters=11_778_592,
    gflops=1.814,
    sites=117,
    source=SQUEEZE,
)
def se_resnet18(num_classes: int = 1000) -> ResNet:
    """ResNet-18 whose blocks scale their channels before the shortcut is added."""
    return ResNet(partial(BasicBlock, attention=SqueezeExcitation), (2, 2, 2, 2), num_classes=num_classes)


@register(
    family="se_resnet",
    depth=50,
    baseline="baseline:se_resnet50",
    parameters=28_088_024,
    gflops=4.092,
    sites=271,
    source=SQUEEZE,
)
def se_resnet50(num_classes: int = 1000) -> ResNet:
    """ResNet-50 whose blocks scale their channels before the shortcut is added; the stride is at the 3x3."""
    return ResNet(partial(Bottleneck, attention=SqueezeExcitation), (3, 4, 6, 3), num_classes=num_classes)
