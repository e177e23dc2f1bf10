"""Small models as a whole and spread over processes, right or with a fault, as `SHARDS` in the environment says.

`SHARDS` is `MODEL/STYLE/FAULT`, such as `llama/hand/unreduced`; `whole` builds the baseline, `part` this process's
part of the candidate.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HEADS, WORDS, LAYERS, TIME = 32, 4, 40, 4, 8


def _case() -> tuple[str, str, str]:
    model, style, fault = os.environ["SHARDS"].split("/")
    return model, style, fault


def hidden() -> int:
    """The width inside; torch's own row-wise layers take no uneven parts."""
    return 52 if _case()[1] in ("tensor", "torch_sequence") else 51


def _fault(name: str) -> bool:
    return _case()[2] == name


class Norm(nn.Module):
    """A root-mean-square norm, of so many numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.2 * torch.randn(width))

    def forward(self, x: Tensor) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    """Heads of attention, with a norm over all of a query, as some have it."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.size, self.causal = WIDTH // HEADS, causal
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = Norm(WIDTH)

    def forward(self, x: Tensor) -> Any:
        q, k, v = (
            each.view(*each.shape[:2], -1, self.size).transpose(1, 2)
            for each in (self.norm(self.q(x)), self.k(x), self.v(x))
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """A gated unit."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(WIDTH, hidden()), nn.Linear(WIDTH, hidden())
        self.drop = nn.Dropout(0.3)
        self.down = nn.Linear(hidden(), WIDTH)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.drop(F.silu(self.gate(x)) * self.up(x)))


class Perceptron(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, hidden()), nn.Linear(hidden(), WIDTH)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Any:
        return self.down(self.drop(F.gelu(self.up(x))))


class Experts(nn.Module):
    """A router and what it routes to: the best one for each token, and one that all go through."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(Perceptron() for _ in range(4))
        self.shared = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        shares = self.router(x).softmax(-1)
        best = shares.argmax(-1)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            chosen = best == number
            y[chosen] = expert(x[chosen]) * shares[chosen][:, number : number + 1]
        return y + self.shared(x)


class Block(nn.Module):
    """Attention and what follows it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        norm: Any = nn.LayerNorm if kind == "vit" else Norm
        self.n1, self.n2 = norm(WIDTH), norm(WIDTH)
        if kind == "vit":
            for each in (self.n1, self.n2):
                nn.init.normal_(each.weight, 1, 0.2)
                nn.init.normal_(each.bias, 0, 0.2)
        self.attn = Attention(kind != "vit")
        self.mlp = {"vit": Perceptron, "llama": Mlp, "moe": Experts}[kind]()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Any:
        x = x + self.drop(self.attn(self.n1(x)))
        return x + self.mlp(self.n2(x))


class Llama(nn.Module):
    """Words in, scores of words out."""

    def __init__(self, kind: str = "llama") -> None:
        super().__init__()
        self.emb = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Block(kind) for _ in range(LAYERS))
        self.norm = Norm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: Tensor) -> Any:
        x = self.emb(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class ViT(nn.Module):
    """Pictures in, scores of classes out."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 4)
        self.place = nn.Parameter(0.5 * torch.randn(1, 16, WIDTH))
        self.layers = nn.ModuleList(Block("vit") for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        nn.init.normal_(self.norm.weight, 1, 0.2)
        nn.init.normal_(self.norm.bias, 0, 0.2)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, images: Tensor) -> Any:
        x = self.patch(images).flatten(2).transpose(1, 2) + self.place
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def whole() -> nn.Module:
    """The baseline."""
    torch.manual_seed(0)
    kind = _case()[0]
    model = (ViT() if kind == "vit" else Llama(kind)).eval()
    return _drawing(model)


def _drawing(model: nn.Module) -> nn.Module:
    """Dropouts alone in training mode, where they are to draw."""
    for module in model.modules():
        drops = isinstance(module, nn.Dropout) or hasattr(module, "share")
        module.training = drops and _case()[2] in DRAWING
    return model


DRAWING = frozenset({"drawing", "seed-shared", "seed-differs"})


def inputs() -> Tensor:
    """Two samples, four for parts of a batch."""
    generator = torch.Generator().manual_seed(1)
    if _case()[0] == "vit":
        return torch.randn(4, 3, 16, 16, generator=generator)
    return torch.randint(0, WORDS, (4, TIME), generator=generator)


def rank() -> int:
    """This process."""
    return dist.get_rank()


def world() -> int:
    """How many there are."""
    return dist.get_world_size()


def part() -> nn.Module:
    """This process's part of the candidate."""
    from tests.mutants.shards import styles

    model = whole()
    _, style, _ = _case()
    return _drawing(getattr(styles, style)(model))
