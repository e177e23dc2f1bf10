"""A small residual network for five classes of 224 x 224 images.

An article that classifies photographs of five kinds of figures calls it ResNet-18. It has four residual blocks
where ResNet-18 has eight, so ten layers with weights on its main path and not eighteen, no pooling, and its
classifier reads all 3 x 3 positions: images have to be 219 to 326 pixels high and wide.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_models.registry import register


class SmallBlock(nn.Module):
    """Two 3x3 convolutions with biases, each with its norm, and a shortcut that is projected if channels change.

    A stride asks for other channels: with as many channels out as in the shortcut is the input itself, whatever the
    stride, and does not fit what it is added to.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        """`stride` is that of the first convolution and of the projection."""
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1)
        self.second_norm = nn.BatchNorm2d(channels_out)
        self.shortcut = (
            nn.Sequential(
                nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride),
                nn.BatchNorm2d(channels_out),
            )
            if channels_in != channels_out
            else nn.Sequential()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, H, W) to (B, channels_out, ceil(H / stride), ceil(W / stride))."""
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return F.relu(self.shortcut(x) + y)


class SmallResNet(nn.Module):
    """A 3x3 stem with stride 3 and four blocks with strides 3, 3, 2, 2. Initial values are torch's own."""

    def __init__(self, num_classes: int = 5) -> None:
        """Build the network in training mode."""
        super().__init__()
        self.stem = nn.Conv2d(3, 16, kernel_size=3, stride=3)
        self.stem_norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(
            SmallBlock(16, 32, stride=3),
            SmallBlock(32, 64, stride=3),
            SmallBlock(64, 128, stride=2),
            SmallBlock(128, 256, stride=2),
        )
        self.head = nn.Linear(256 * 3 * 3, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 224) normalised images to (B, num_classes) logits."""
        x = F.relu(self.stem_norm(self.stem(images)))
        x = self.blocks(x)
        logits: Tensor = self.head(torch.flatten(x, 1))
        return logits


@register(
    family="small_resnet",
    depth=10,
    baseline="baseline:small_resnet18",
    parameters=1_234_885,
    gflops=0.03,
    sites=41,
    small_size=224,
    source="an article on classifying five kinds of figures",
)
def small_resnet18(num_classes: int = 5) -> SmallResNet:
    """The article's five-class network, which it calls ResNet-18."""
    return SmallResNet(num_classes)
