"""Small networks in two or more spellings: the same function from other operators, other names, other tensors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, TOKENS = 8, 2, 6
HEAD = WIDTH // HEADS


def tokens(seed: int = 0) -> Tensor:
    """Standard normal tokens, (2, TOKENS, WIDTH)."""
    return torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def excited(module: nn.Module, seed: int) -> Any:
    """The module in eval mode with every parameter and buffer drawn, so that no two channels are alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()


def heads(x: Tensor) -> Tensor:
    """(N, L, E) to (N, heads, L, E / heads)."""
    return x.reshape(*x.shape[:-1], HEADS, HEAD).transpose(1, 2)


class Attention(nn.Module):
    """One pre-norm attention block and a head; how it attends is up to the subclass.

    `scale` multiplies the scores and `axis` is the softmax's: a wrong value of either is a fault.
    """

    scale = 1.0
    axis = -1

    def attend(self, x: Tensor) -> Tensor:
        """(N, L, E) to the same shape."""
        raise NotImplementedError


class Fused(Attention):
    """One projection for query, key and value; products and softmax written out."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, E) to (N, L, 5)."""
        q, k, v = map(heads, self.qkv(self.norm(x)).chunk(3, -1))
        scores = q @ k.transpose(-2, -1) * (self.scale * HEAD**-0.5)
        out = torch.softmax(scores, self.axis) @ v
        result: Tensor = self.head(x + self.proj(out.transpose(1, 2).flatten(2)))
        return result


class Separate(Attention):
    """Three projections, defined in `order`; attention in einsums."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

    def __init__(self, order: str = "qkv") -> None:
        super().__init__()
        for name in order:
            setattr(self, name, nn.Linear(WIDTH, WIDTH))
        self.classify = nn.Linear(WIDTH, 5)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.ln = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, E) to (N, L, 5)."""
        y = self.ln(x)
        q, k, v = heads(self.q(y)), heads(self.k(y)), heads(self.v(y))
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / (math.sqrt(HEAD) / self.scale)
        out = torch.einsum("bhqk,bhkd->bqhd", torch.softmax(scores, self.axis), v).flatten(2)
        result: Tensor = self.classify(self.out(out) + x)
        return result


class OneCall(Separate):
    """Three projections; attention in one operator."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, E) to (N, L, 5)."""
        y = self.ln(x)
        out = F.scaled_dot_product_attention(
            heads(self.q(y)), heads(self.k(y)), heads(self.v(y)), scale=self.scale * HEAD**-0.5
        )
        result: Tensor = self.classify(self.out(out.transpose(1, 2).flatten(2)) + x)
        return result


class Multihead(Attention):
    """Everything in one operator, `F.multi_head_attention_forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, E) to (N, L, 5)."""
        y = self.norm(x)
        result: Tensor = self.head(x + self.attn(y, y, y, need_weights=False)[0])
        return result


class Pointwise(nn.Module):
    """Channels first: 1x1 convolutions, a layer scale of shape (C, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 12, 1)
        self.reduce = nn.Conv2d(12, 4, 1)
        self.gamma = nn.Parameter(torch.ones(4, 1, 1))
        self.mix = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 4, H, W)."""
        y = self.reduce(F.gelu(self.expand(x)))
        result: Tensor = self.mix(y * self.gamma)
        return result


class ChannelsLast(nn.Module):
    """Channels last: linear layers, a layer scale of shape (C,)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.fc1 = nn.Linear(3, 12)
        self.fc2 = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 4, H, W)."""
        y = self.fc2(F.gelu(self.fc1(x.permute(0, 2, 3, 1)))) * self.scale
        result: Tensor = self.conv(y.permute(0, 3, 1, 2))
        return result


class WholeWindow(nn.Module):
    """A classifier that convolves over the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.hidden = nn.Conv2d(4, 7, 8)
        self.scores = nn.Conv2d(7, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 5)."""
        return self.scores(F.relu(self.hidden(F.relu(self.stem(x))))).flatten(1)  # type: ignore[no-any-return]


class Flattened(nn.Module):
    """A classifier with linear layers on the flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(7, 5)
        self.fc0 = nn.Linear(4 * 8 * 8, 7)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 8, 8) to (N, 5)."""
        result: Tensor = self.fc(F.relu(self.fc0(F.relu(self.conv(x)).flatten(1))))
        return result


class Stored(nn.Module):
    """A perceptron of linear layers, whose weights are (out, in)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, E) to the same shape."""
        return x + self.down(F.gelu(self.up(self.norm(x))))  # type: ignore[no-any-return]


class Turned(nn.Module):
    """The same with weights (in, out): `torch.addmm`, as GPT-2's, and `x @ w`."""

    def __init__(self) -> None:
        super().__init__()
        self.w2 = nn.Parameter(torch.ones(4 * WIDTH, WIDTH))
        self.b2 = nn.Parameter(torch.ones(WIDTH))
        self.w1 = nn.Parameter(torch.ones(WIDTH, 4 * WIDTH))
        self.b1 = nn.Parameter(torch.ones(4 * WIDTH))
        self.ln = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, E) to the same shape."""
        y = torch.addmm(self.b1, self.ln(x).flatten(0, 1), self.w1).view(*x.shape[:2], -1)
        return F.gelu(y) @ self.w2 + self.b2 + x


class Decomposed(nn.Module):
    """The perceptron with its layer norm written out."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(4 * WIDTH, WIDTH)
        self.first = nn.Linear(WIDTH, 4 * WIDTH)
        self.beta = nn.Parameter(torch.ones(WIDTH))
        self.alpha = nn.Parameter(torch.ones(WIDTH))
        self.eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, E) to the same shape."""
        centred = x - x.mean(-1, keepdim=True)
        normal = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)
        y = normal * self.alpha + self.beta
        return x + self.second(F.gelu(self.first(y)))  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two modules that share a weight: an embedding and the head that undoes it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        """Indices, (N, L), to (N, L, 11)."""
        result: Tensor = self.head(torch.tanh(self.inner(self.norm(self.embed(x)))))
        return result


class TiedTensor(nn.Module):
    """One weight that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH, WIDTH))
        self.bias = nn.Parameter(torch.ones(WIDTH))
        self.ln = nn.LayerNorm(WIDTH)
        self.table = nn.Parameter(torch.ones(11, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Indices, (N, L), to (N, L, 11)."""
        y = torch.addmm(self.bias, self.ln(self.table[x]).flatten(0, 1), self.weight)
        return (torch.tanh(y) @ self.table.T).view(*x.shape, 11)
