"""Small networks that are exported, each with operators of another kind, and what they are run on."""

from __future__ import annotations

import io
import math
import tempfile
import warnings
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch.export import ExportedProgram

EXPORTERS = ("dynamo", "script")
SIZE = 16


class Residual(nn.Module):
    """Convolutions with batch norms, shortcuts and pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.one = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.two = nn.Conv2d(8, 8, 3, padding=1)
        self.mean = nn.AvgPool2d(2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 16, 16) to (N, 5)."""
        x = self.pool(self.stem(x))
        x = F.relu(self.one(x) + x)
        x = F.leaky_relu(self.two(x) + x, 0.1)
        return F.log_softmax(self.head(self.mean(x).mean((2, 3))), 1)


class Separable(nn.Module):
    """Depthwise convolutions, gates of channels, and activations of small networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.wide = nn.Conv2d(8, 8, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 16, 16) to (N, 5)."""
        x = F.hardswish(self.stem(x))
        y = F.relu6(self.deep(x) * 2)
        gate = F.hardsigmoid(self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))))
        x = x + F.silu(self.norm(self.wide(y * gate)))
        return torch.softmax(self.head(F.elu(x).amax((2, 3))), -1)


class Attention(nn.Module):
    """Patches, attention written out, layer norms and a feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.place = nn.Parameter(torch.zeros(1, 16, 12))
        self.first, self.second = nn.LayerNorm(12), nn.LayerNorm(12)
        self.qkv, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.wide, self.narrow = nn.Linear(12, 24), nn.Linear(24, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 16, 16) to (N, 5)."""
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        q, k, v = self.qkv(self.first(x)).reshape(-1, 16, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1) / math.sqrt(4)).softmax(-1)
        x = x + self.out((scores @ v).transpose(1, 2).reshape(-1, 16, 12))
        x = x + self.narrow(F.gelu(self.wide(self.second(x))))
        return torch.tanh(self.head(x[:, 0] - x[:, 1:].mean(1)))


class Pyramid(nn.Module):
    """A map is made smaller and larger again, and joined with itself as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.norm = nn.InstanceNorm2d(8, affine=True)
        self.back = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.joined = nn.Conv2d(18, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 16, 16) to (N, 4, 16, 16)."""
        x = F.leaky_relu(self.fine(x), 0.2)
        y = F.celu(self.norm(self.coarse(x)), 0.7)
        z = F.interpolate(y[:, 2:], scale_factor=2.0, mode="bilinear", align_corners=False)
        joined = torch.cat([x, self.back(y), z * 0.3], 1)
        return torch.sigmoid(self.joined(F.pad(joined, (1, 1, 1, 1), mode="replicate")).clamp(-2.0, 2.0))


class Tokens(nn.Module):
    """Embedded tokens, a norm by the root of the mean square, masked scores and a gated part."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 12)
        self.gain = nn.Parameter(torch.ones(12))
        self.q, self.k, self.v = (nn.Linear(12, 12, bias=False) for _ in range(3))
        self.gate, self.up, self.down = nn.Linear(12, 16), nn.Linear(12, 16), nn.Linear(16, 12)
        self.head = nn.Linear(12, 20, bias=False)
        self.register_buffer("hidden", torch.triu(torch.ones(9, 9, dtype=torch.bool), 1))

    def forward(self, ids: Tensor) -> Tensor:
        """(N, 9) token ids to (N, 9, 20)."""
        x = self.table(ids)
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-3) * self.gain
        scores = self.q(y) @ self.k(y).transpose(-2, -1) * 12**-0.5
        scores = scores.masked_fill(self.get_buffer("hidden"), -1e4)
        x = x + scores.softmax(-1) @ self.v(y)
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        made: Tensor = self.head(x + x.cumsum(1) * 0.1)
        return made


NETWORKS: dict[str, type[nn.Module]] = {
    kind.__name__.lower(): kind for kind in (Residual, Separable, Attention, Pyramid, Tokens)
}


@cache
def build(name: str) -> Any:
    """A network whose weights and statistics show in what it gives. Cached: nobody may write into it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name]()
        for each in model.parameters():
            if each.dim() < 2:
                nn.init.normal_(each, 1.0 if bool((each == 1).all()) else 0.0, 0.2)
            elif not bool(each.any()):
                nn.init.normal_(each, 0.0, 0.2)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.normal_(module.running_mean, 0.0, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval().requires_grad_(requires_grad=False)


def inputs(name: str, batch: int = 2, seed: int = 0) -> Tensor:
    """Images of standard normal numbers, (batch, 3, 16, 16); for `tokens` ids, (batch, 9)."""
    generator = torch.Generator().manual_seed(seed)
    if name == "tokens":
        return torch.randint(0, 20, (batch, 9), generator=generator)
    return torch.randn(batch, 3, SIZE, SIZE, generator=generator)


def to_onnx(model: nn.Module, x: Tensor, exporter: str, **options: Any) -> onnx.ModelProto:
    """A model as an exporter of torch's writes it, for batches of any size."""
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings(action="ignore"):
        file = Path(directory) / "net.onnx"
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if exporter == "dynamo":
                free = ({0: torch.export.Dim.DYNAMIC},)
                torch.onnx.export(model, (x,), file, dynamo=True, dynamic_shapes=free, **options)
            else:
                options |= {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
                torch.onnx.export(model, (x,), file, dynamo=False, **options)
        return onnx.load(str(file))


@cache
def exported_onnx(name: str, exporter: str) -> onnx.ModelProto:
    """A network as an ONNX model. Cached: copy it before changing it."""
    return to_onnx(build(name), inputs(name), exporter)


@cache
def exported_program(name: str) -> ExportedProgram:
    """A network as an exported program. Cached: copy it before changing it."""
    return torch.export.export(build(name), (inputs(name),))
