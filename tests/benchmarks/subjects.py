"""What the benchmarks run: pairs of models ready to compare, and the recipe people write themselves."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from scipy.stats import pearsonr
from torch import Tensor, nn
from torch.nn import functional as F

import reference_models
from verifier import verify
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
    from collections.abc import Callable, Iterator

    from verifier.inputs import Inputs
    from verifier.storage.saving import Verification

CELL = Cell("cpu", "float32")


class Prepared:
    """Two models with the same weights, aligned, and their inputs."""

    def __init__(self, baseline: nn.Module, candidate: nn.Module, inputs: Inputs, cell: Cell = CELL) -> None:
        few = sample(inputs, 2)
        self.inputs = inputs
        alignment = align(_graph(baseline, few), _graph(candidate, few))
        masters = choose("calibrated", baseline, candidate, alignment, (few.args, few.kwargs))
        self.subject = Subject(baseline, candidate, alignment, masters)
        self.bench = Bench(self.subject, inputs, cell)

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


class Given:
    """Two models as a user gives them, and what `verify` is told.

    Args:
        name: What the pair is called.
        baseline: Builds the baseline.
        candidate: Builds the candidate.
        inputs: One tensor, with samples along its first dimension.
        cells: What is asked for.
    """

    def __init__(
        self,
        name: str,
        baseline: Callable[[], nn.Module],
        candidate: Callable[[], nn.Module],
        inputs: Tensor,
        cells: tuple[str, ...] = ("cpu/float32",),
    ) -> None:
        self.name, self.inputs, self.cells = name, inputs, cells
        self._builders = {"baseline": baseline, "candidate": candidate}
        self.baseline, self.candidate = (self.built(side) for side in self._builders)

    def built(self, side: str) -> nn.Module:
        """One of the two, built anew, in evaluation mode."""
        torch.manual_seed(0)
        return self._builders[side]().eval()

    def bare(self) -> None:
        """Both forwards, nothing else, in the dtype of the last cell."""
        dtype = getattr(torch, self.cells[-1].rpartition("/")[2])
        with torch.no_grad():
            for model in (self.baseline, self.candidate):
                model.to(dtype)(self.inputs.to(dtype) if self.inputs.is_floating_point() else self.inputs)

    def verify(self) -> Verification:
        """The whole verification, as `verifier.verify` makes it."""
        for model in (self.baseline, self.candidate):
            model.float()
        return verify(self.baseline, self.candidate, self.inputs, cells=self.cells)


def of_the_account() -> Iterator[Given]:
    """The pairs whose cost is kept an account of; those whose library is not installed are left out, and told."""
    import torchvision

    images = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    yield Given("ResNet-50, batch 8", torchvision.models.resnet50, reference_models.get("resnet50"), images)

    def faulty() -> nn.Module:
        model: nn.Module = torchvision.models.resnet50()
        norm = model.get_submodule("layer2.1.bn2")
        assert isinstance(norm, nn.BatchNorm2d)
        norm.eps = 1e-3
        return model

    yield Given("ResNet-50, batch 8, one culprit", torchvision.models.resnet50, faulty, images)
    halves = ("cpu/bfloat16",)
    small = reference_models.get("resnet18")
    yield Given("ResNet-18, batch 8, bfloat16 alone", torchvision.models.resnet18, small, images, halves)
    yield from _llama(2, 128)
    try:
        import timm
    except ImportError:
        print("\nViT-B/16: timm is not installed")
    else:
        yield Given(
            "ViT-B/16 of torchvision and of timm, batch 2",
            torchvision.models.vit_b_16,
            lambda: timm.create_model("vit_base_patch16_224"),
            images[:2],
        )


def _llama(samples: int, tokens: int) -> Iterator[Given]:
    """A Llama of 12 layers beside itself, if transformers is installed."""
    try:
        import transformers
    except ImportError:
        print("\nLlama: transformers is not installed")
        return
    config = transformers.LlamaConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=2048,
        vocab_size=32000,
        use_cache=False,
    )

    def llama() -> nn.Module:
        return transformers.LlamaForCausalLM(config)

    ids = torch.randint(0, 32000, (samples, tokens), generator=torch.Generator().manual_seed(0))
    yield Given(f"Llama, 12 layers of 768, {samples} x {tokens} tokens", llama, llama, ids)


def of_the_peers() -> Iterator[Given]:
    """Each network beside itself, for which nobody has to say what belongs together."""
    from torchvision import models

    images = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    yield Given("ResNet-50, batch 8, float32", models.resnet50, models.resnet50, images)
    yield Given("ResNet-50, batch 1, float32", models.resnet50, models.resnet50, images[:1])
    yield Given(
        "ResNet-18, batch 2, bfloat16", models.resnet18, models.resnet18, images[:2], ("cpu/bfloat16",)
    )
    yield Given("ViT-B/16, batch 2, float32", models.vit_b_16, models.vit_b_16, images[:2])
    yield from _llama(2, 128)
