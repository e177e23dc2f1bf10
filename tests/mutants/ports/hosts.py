"""What a port is: a region of a network written with other operators, and the networks it stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 16
TOKENS = (2, 6, WIDTH)


class Stored(NamedTuple):
    """A writing with layers of its own, which `make` puts into the host, in the place of others or beside them."""

    make: Callable[[Any], None]
    run: Callable[..., Any]


class Port(NamedTuple):
    """A baseline's region, the same with other operators, that with one fault, and words of which its cause has one.

    `inputs` is the shape of what goes in, channels last; `culprits` how many sites are at fault.
    """

    baseline: Callable[..., Any] | Stored
    right: Callable[..., Any] | Stored
    wrong: Callable[..., Any] | Stored
    words: str
    inputs: tuple[int, ...] = TOKENS
    culprits: int = 1


class Host(nn.Module):
    """A region between two linear layers, on parameters that do not depend on how the region is written.

    With a `body`, one of `BODIES`, before the region, and another one behind it where the region keeps the shape.
    """

    def __init__(self, region: Callable[..., Any] | Stored, body: str | None = None, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
            self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
            self.up, self.gate = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 4 * WIDTH)
            self.conv = nn.Conv2d(WIDTH, WIDTH, 3, stride=2)
            self.merge = nn.Linear(4 * WIDTH, WIDTH)
            self.weight = nn.Parameter(torch.rand(WIDTH, generator=generator) + 0.5)
            self.bias = nn.Parameter(torch.rand(WIDTH, generator=generator))
            self.before, self.after = (BODIES[body]() if body else None for _ in range(2))
            torch.manual_seed(seed + 1)
            if isinstance(region, Stored):
                with torch.no_grad():
                    region.make(self)
        self.region = region.run if isinstance(region, Stored) else region

    def forward(self, x: Tensor) -> Any:
        """(N, ..., `WIDTH`) to (N, ..., 3)."""
        x = self.first(x if self.before is None else self.before(x))
        made = self.region(self, x)
        if self.after is not None and made.shape == x.shape:
            made = self.after(made)
        return self.last(made)


class Attention(nn.Module):
    """A block of a transformer, norms first."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        q, k, v = (
            part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1)
        )
        made = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(made.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.other(x))))


class Recurrence(nn.Module):
    """A gated recurrent layer beside a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return x + self.layer(x)[0]


class Experts(nn.Module):
    """Two of four experts by token, each expert on the tokens that chose it."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, 4, bias=False)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Any:
        tokens = x.flatten(0, -2)
        shares, chosen = self.router(tokens).softmax(-1).topk(2, -1)
        shares = shares / shares.sum(-1, keepdim=True)
        made = torch.zeros_like(tokens)
        for k, expert in enumerate(self.experts):
            row, rank = torch.where(chosen == k)
            made.index_add_(0, row, F.silu(expert(tokens[row])) * shares[row, rank, None])
        return x + made.view(x.shape)


class GatedNorm(nn.Module):
    """A norm by root mean square of a gated branch."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)

    def forward(self, x: Tensor) -> Any:
        value, gate = self.into(x).chunk(2, -1)
        h = value * F.silu(gate)
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)
        return x + self.out(self.weight * h)


class Residual(nn.Module):
    """A residual block of convolutions, for pictures whose channels are last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Any:
        h = x.permute(0, 3, 1, 2)
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(h)))))
        return F.relu(x + h.permute(0, 2, 3, 1))


BODIES: dict[str, Callable[[], nn.Module]] = {
    "attention": Attention,
    "experts": Experts,
    "gated norm": GatedNorm,
    "recurrence": Recurrence,
    "residual": Residual,
}


def bodies(inputs: tuple[int, ...]) -> list[str]:
    """The networks that take tensors of this shape: sequences or pictures."""
    return ["gated norm", "residual"] if len(inputs) == 4 else sorted(BODIES.keys() - {"residual"})
