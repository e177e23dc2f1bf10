"""Baselines to plant faults in: every operation is a named child, so that any of them can be exchanged."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

BUILDERS: dict[str, Callable[[], nn.Module]] = {}
SIZE = {"basic": 32, "grouped": 16, "plain": 18, "mixed": 32, "training": 16}


def builder(function: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    BUILDERS[function.__name__] = function
    return function


@cache
def build(name: str, seed: int) -> Any:
    """A baseline with seeded parameters. Cached: copy it before changing it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BUILDERS[name]()
        _excite(model, images(name, 8, seed))
    return model.train(name == "training")


def images(name: str, batch: int, seed: int) -> Tensor:
    """Images for the network `name`: (batch, 3, size, size) in 0..1, or standard normal."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 3, SIZE[name], SIZE[name])
    if name in {"basic", "training"}:  # these normalise
        return torch.rand(shape, generator=generator)
    return torch.randn(shape, generator=generator)


class Normalise(nn.Module):
    """Images in 0..1 to zero mean and unit variance by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to the same shape."""
        return (x - self.get_buffer("mean")) / self.get_buffer("std")


class Add(nn.Module):
    """A sum."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two tensors of one shape to that shape."""
        return a + b


class Multiply(nn.Module):
    """A product."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two tensors that broadcast to their common shape."""
        return a * b


class MatMul(nn.Module):
    """A matrix product."""

    def __init__(self, *, transposed: bool = False) -> None:
        super().__init__()
        self.transposed = transposed

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, L, K) and (N, K, M), or (N, M, K) if transposed, to (N, L, M)."""
        return a @ (b.transpose(1, 2) if self.transposed else b)


class Scale(nn.Module):
    """A product with a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return x * self.factor


class Tokens(nn.Module):
    """An image as a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, H * W, C)."""
        return x.flatten(2).transpose(1, 2)


class MeanToken(nn.Module):
    """The mean of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to (N, C)."""
        return x.mean(1)


class Chain(nn.Module):
    """Children run one after the other, in the order of `chain`."""

    chain: tuple[str, ...] = ()

    def body(self, x: Tensor) -> Tensor:
        """Run the chain."""
        for name in self.chain:
            x = self.get_submodule(name)(x)
        return x


class Residual(Chain):
    """A chain beside a shortcut, joined by `add` and then `last`."""

    shortcut: nn.Module
    add: nn.Module
    last: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the output's shape."""
        out: Tensor = self.last(self.add(self.body(x), self.shortcut(x)))
        return out


class Basic(Residual):
    """torchvision's basic block."""

    chain = ("conv1", "bn1", "relu1", "conv2", "bn2")

    def __init__(self, width: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and width == out
            else nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )
        self.add = Add()
        self.last = nn.ReLU()


class Bottleneck(Residual):
    """A ResNeXt bottleneck; its shortcut pools on the average, as ResNet-D's does."""

    chain = ("conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "conv3", "bn3")

    def __init__(self, width: int, inner: int, out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and width == out
            else nn.Sequential(
                nn.AvgPool2d(3, stride, 1), nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
            )
        )
        self.add = Add()
        self.last = nn.ReLU()


class Gate(Chain):
    """Squeeze and excitation."""

    chain = ("pool", "reduce", "relu", "expand", "sigmoid")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(width, width // 2, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(width // 2, width, 1)
        self.sigmoid = nn.Sigmoid()
        self.multiply = Multiply()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        out: Tensor = self.multiply(x, self.body(x))
        return out


class PreActivated(Residual):
    """A depthwise block that activates first: what it reads is also its shortcut."""

    chain = ("relu", "conv", "bn", "gate")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.bn = nn.BatchNorm2d(width)
        self.gate = Gate(width)
        self.shortcut = nn.Identity()
        self.add = Add()
        self.last = nn.Identity()


class Attention(nn.Module):
    """One head of attention with a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.scores = MatMul(transposed=True)
        self.scale = Scale(width**-0.5)
        self.softmax = nn.Softmax(-1)
        self.mix = MatMul()
        self.project = nn.Linear(width, width)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to the same shape."""
        y = self.norm(x)
        weights = self.softmax(self.scale(self.scores(self.query(y), self.key(y))))
        out: Tensor = self.add(x, self.project(self.mix(weights, self.value(y))))
        return out


class Perceptron(Residual):
    """The two-layer perceptron of a transformer block."""

    chain = ("norm", "fc1", "gelu", "fc2")

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 16)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(16, width)
        self.shortcut = nn.Identity()
        self.add = Add()
        self.last = nn.Identity()


@builder
def basic() -> nn.Module:
    """A ResNet of basic blocks that normalises its input."""
    model = nn.Sequential()
    model.normalise = Normalise()
    model.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
    model.bn1 = nn.BatchNorm2d(8)
    model.relu = nn.ReLU()
    model.maxpool = nn.MaxPool2d(3, 2, 1)
    model.layer1 = nn.Sequential(Basic(8, 8), Basic(8, 8))
    model.layer2 = nn.Sequential(Basic(8, 12, 2))
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.flatten = nn.Flatten()
    model.fc = nn.Linear(12, 10)
    return model


@builder
def grouped() -> nn.Module:
    """A small ResNeXt."""
    model = nn.Sequential()
    model.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    model.bn1 = nn.BatchNorm2d(8)
    model.relu = nn.ReLU()
    model.layer1 = nn.Sequential(Bottleneck(8, 8, 16, 1, 2), Bottleneck(16, 8, 16, 1, 4))
    model.layer2 = nn.Sequential(Bottleneck(16, 16, 16, 2, 4))
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.flatten = nn.Flatten()
    model.fc = nn.Linear(16, 10)
    return model


@builder
def plain() -> nn.Module:
    """A VGG with biases and without normalisation; the odd sizes show what pools do at their borders."""
    model = nn.Sequential()
    model.features = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
    )
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.flatten = nn.Flatten()
    model.classifier = nn.Sequential(
        nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 10)
    )
    return model


@builder
def mixed() -> nn.Module:
    """Patches, group and layer norms, a gate, attention and GELUs."""
    model = nn.Sequential()
    model.patches = nn.Conv2d(3, 12, 7, 4, 3)
    model.norm = nn.GroupNorm(3, 12)
    model.gelu = nn.GELU()
    model.local = PreActivated(12)
    model.tokens = Tokens()
    model.attention = Attention(12)
    model.perceptron = Perceptron(12)
    model.last = nn.LayerNorm(12)
    model.pool = MeanToken()
    model.head = nn.Linear(12, 10)
    return model


@builder
def training() -> nn.Module:
    """Two residual blocks that stay in training mode."""
    model = nn.Sequential()
    model.normalise = Normalise()
    model.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
    model.bn1 = nn.BatchNorm2d(8)
    model.relu = nn.ReLU()
    model.layer1 = nn.Sequential(Basic(8, 8))
    model.layer2 = nn.Sequential(Basic(8, 12, 2))
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.flatten = nn.Flatten()
    model.fc = nn.Linear(12, 10)
    return model


@torch.no_grad()
def _excite(model: nn.Module, x: Tensor) -> None:
    """Draw what constructors leave at 0 and 1, and give running statistics values near the true ones."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.3)
        elif parameter.dim() == 1:
            parameter.uniform_(0.6, 2.5)  # wide enough for a ReLU6 to show
        else:
            parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
    for norm in norms:
        norm.momentum = None  # the plain average
    model.train()(x)
    for norm in norms:
        norm.momentum = 0.1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
        norm.num_batches_tracked.zero_() if norm.num_batches_tracked is not None else None
    model.eval()
