"""What the benchmarks run: pairs of models ready to compare, and the recipe people write themselves."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from scipy.stats import pearsonr
from torch import Tensor, nn
from torch.nn import functional as F

import reference_models
from verifier.align import align
from verifier.bench.bench import Bench
from verifier.bench.measuring import measure
from verifier.bench.subject import Subject
from verifier.cells import Cell
from verifier.graph import Graph, record
from verifier.inputs import normal
from verifier.inputs.samples import sample
from verifier.models.copying import copy_with, state_of
from verifier.weights import choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.inputs import Inputs

CELL = Cell("cpu", "float32")


class Prepared:
    """Two models with the same weights, aligned, and their inputs."""

    def __init__(self, baseline: nn.Module, candidate: nn.Module, inputs: Inputs) -> None:
        few = sample(inputs, 2)
        self.inputs = inputs
        alignment = align(_graph(baseline, few), _graph(candidate, few))
        masters = choose("calibrated", baseline, candidate, alignment, (few.args, few.kwargs))
        self.subject = Subject(baseline, candidate, alignment, masters)
        self.bench = Bench(self.subject, inputs, CELL)

    @cached_property
    def baseline(self) -> nn.Module:
        """The baseline with the weights of the comparison, for bare runs."""
        return copy_with(
            self.subject.baseline, dict(self.subject.masters.baseline), lambda t: t, role="baseline"
        )

    @cached_property
    def candidate(self) -> nn.Module:
        """The candidate with the weights of the comparison, for bare runs."""
        return copy_with(
            self.subject.candidate, dict(self.subject.masters.candidate), lambda t: t, role="candidate"
        )

    def bare(self) -> None:
        """Both forwards, nothing else."""
        with torch.no_grad():
            self.baseline(*self.inputs.args)
            self.candidate(*self.inputs.args)

    def free_pass(self) -> None:
        """Every functional site of both models compared in lockstep."""
        measure(self.bench, [self.inputs], forced=False)

    def both_passes(self) -> None:
        """A free pass and then a forced one."""
        self.free_pass()
        measure(self.bench, [self.inputs], free=False)

    def recipe(self) -> None:
        """Hooks that keep a clone of every leaf's output, then MSE and scipy's Pearson layer by layer."""
        kept: list[list[Tensor]] = []
        with torch.no_grad():
            for model in (self.baseline, self.candidate):
                outputs: list[Tensor] = []
                handles = [
                    module.register_forward_hook(_keeping(outputs))
                    for module in model.modules()
                    if not any(module.children())
                ]
                model(*self.inputs.args)
                for handle in handles:
                    handle.remove()
                kept.append(outputs)
            convolved = [[t for t in outputs if t.dim() == 4] for outputs in kept]
            for a, b in zip(*convolved, strict=False):
                if a.shape == b.shape:
                    torch.mean((a - b) ** 2).item()
                    pearsonr(a.flatten().numpy(), b.flatten().numpy())


def _keeping(outputs: list[Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, _args: object, result: Tensor) -> None:
        outputs.append(result.clone())

    return hook


def _graph(model: nn.Module, inputs: Inputs) -> Graph:
    copy = copy_with(model, state_of(model), lambda t: t, role="model")
    return record(copy, [t.clone() for t in inputs.args], {})


def resnet50(batch_size: int, image_size: int) -> Prepared:
    """Torchvision's ResNet-50 and ours."""
    from torchvision.models import resnet50 as theirs

    return Prepared(
        theirs().eval(), reference_models.get("resnet50")().eval(), normal(batch_size, image_size, 0)
    )


class Chain(nn.Module):
    """A residual network of one width, as deep as wanted: 2 convolutions a block, one stem, one head."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(depth - 2)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(depth - 2))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, (N, 10), of images (N, 3, H, W)."""
        x = F.relu(self.stem(x))
        for k in range(0, len(self.convs), 2):
            branch = F.relu(self.norms[k](self.convs[k](x)))
            x = F.relu(x + self.norms[k + 1](self.convs[k + 1](branch)))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


def chain(depth: int, width: int = 16, batch_size: int = 32, image_size: int = 32) -> Prepared:
    """Two residual chains of `depth` weighted layers."""
    return Prepared(Chain(depth, width).eval(), Chain(depth, width).eval(), normal(batch_size, image_size, 0))
