"""`nn.MultiheadAttention` and what ports write in its place, with faults that ports have."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, TOKENS, MEMORIES = 12, 3, 4, 5
HEAD = WIDTH // HEADS


def tokens() -> tuple[Tensor, Tensor]:
    """Queries, (2, TOKENS, WIDTH), and what they look at, (2, MEMORIES, WIDTH)."""
    generator = torch.Generator().manual_seed(2)
    x, memory = (torch.randn(2, count, WIDTH, generator=generator) for count in (TOKENS, MEMORIES))
    return x, memory


CAUSAL = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(1)
LATE = torch.ones(TOKENS, TOKENS, dtype=torch.bool).triu(2)
PADDED = torch.arange(MEMORIES)[None] >= torch.tensor([[3], [5]])


class Attending(nn.Module):
    """A projection, an attention and a norm.

    `kind` says what is query, key and value: `self`, `cross`, or `placed` (places are added to the keys alone).
    `widths` are those of keys and values where they are not the queries'.
    """

    def __init__(self, kind: str, widths: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.before, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.places = nn.Parameter(torch.zeros(MEMORIES, WIDTH))
        self.narrow = nn.ModuleList(nn.Linear(WIDTH, width) for width in widths or ())

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """What comes of queries, keys and values, all (N, L, E), and the weights if they are wanted."""
        raise NotImplementedError

    def forward(self, x: Tensor, memory: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, L, E) and (N, S, E) to (N, L, E), with the weights if they are wanted."""
        x = self.before(x)
        k, v = (x, x) if self.kind == "self" else (memory, memory)
        k = k + self.places if self.kind == "placed" else k
        if self.narrow:
            k, v = self.narrow[0](k), self.narrow[1](v)
        y, weights = self.attend(x, k, v)
        y = self.norm(x + y)
        return y if weights is None else (y, weights)


class Called(Attending):
    """By `nn.MultiheadAttention`; `first` puts the batch first, `weights` is how those are returned."""

    def __init__(
        self,
        kind: str = "placed",
        *,
        first: bool = True,
        weights: str = "",
        mask: Tensor | None = None,
        padded: Tensor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(kind, (options["kdim"], options["vdim"]) if "kdim" in options else None)
        self.first, self.weights = first, weights
        self.mask, self.padded = mask, padded
        self.inner = nn.MultiheadAttention(WIDTH, options.pop("heads", HEADS), batch_first=first, **options)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Attending`."""
        if not self.first:
            q, k, v = (each.transpose(0, 1) for each in (q, k, v))
        y, weights = self.inner(
            q,
            k,
            v,
            need_weights=bool(self.weights),
            average_attn_weights=self.weights != "each",
            attn_mask=self.mask,
            key_padding_mask=self.padded,
        )
        return (y if self.first else y.transpose(0, 1)), weights


class Written(Attending):
    """By hand, from projections of their own; `fault` names what is wrong.

    `form` is how the products are made, `stored` how the projections are kept: `three` linear layers, `one`, `two`
    (the keys' and values' together), or three `convolutions`.
    """

    def __init__(
        self,
        kind: str = "placed",
        *,
        form: str = "matmul",
        stored: str = "three",
        weights: str = "",
        mask: Tensor | None = None,
        padded: Tensor | None = None,
        widths: tuple[int, int] | None = None,
        bias: bool = True,
        key_bias: bool = True,
        heads: int = HEADS,
        extra: str = "",
        fault: str = "",
    ) -> None:
        super().__init__(kind, widths)
        self.of_queries: nn.Module
        self.of_keys: nn.Module
        self.of_values: nn.Module
        self.form, self.stored, self.weights, self.heads = form, stored, weights, heads
        self.extra, self.fault = extra, fault
        self.mask, self.padded = LATE if fault == "mask" else mask, None if fault == "padding" else padded
        keys, values = widths or (WIDTH, WIDTH)
        if stored == "three":  # defined in another order than they are used in
            self.of_values = nn.Linear(values, WIDTH, bias=bias)
            self.of_keys = nn.Linear(keys, WIDTH, bias=bias and key_bias)
        elif stored == "two":
            self.of_both = nn.Linear(WIDTH, 2 * WIDTH, bias=bias)
        elif stored == "one":
            self.of_all = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        else:
            self.of_values, self.of_keys, self.of_queries = (nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(3))
        if stored in {"three", "two"}:
            self.of_queries = nn.Linear(WIDTH, WIDTH, bias=bias)
        self.out = nn.Linear(WIDTH, WIDTH, bias=bias and fault != "a bias missing")
        if extra == "biases":
            self.more = nn.ParameterList(nn.Parameter(torch.zeros(1, 1, WIDTH)) for _ in range(2))

    def project(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, projected, (N, L, E)."""
        if self.stored == "one":
            first, second, third = self.of_all(q).chunk(3, -1)
            return first, second, third
        if self.stored == "two":
            k, v = self.of_both(k).chunk(2, -1)
            return self.of_queries(q), k, v
        if self.stored == "three":
            return self.of_queries(q), self.of_keys(k), self.of_values(v)
        layers = self.of_queries, self.of_keys, self.of_values
        q, k, v = (f(each.mT).mT for f, each in zip(layers, (q, k, v), strict=True))
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Attending`."""
        if self.fault == "places for values":
            v = k
        if self.fault == "keys and values":
            k, v = v, k
        q, k, v = self.project(q, k, v)
        n, length, size = len(q), q.shape[1], WIDTH // self.heads
        hidden = None if self.padded is None else self.padded[:, None, None]
        if self.extra:
            more = [each.expand(n, -1, -1) for each in self.more] if self.extra == "biases" else None
            zero = k.new_zeros(n, 1, WIDTH)
            k, v = (torch.cat([each, more[j] if more else zero], 1) for j, each in enumerate((k, v)))

        def apart(each: Tensor) -> Tensor:
            if self.fault == "heads":
                return each.reshape(n, -1, size, self.heads).permute(0, 3, 1, 2)
            return each.reshape(n, -1, self.heads, size).transpose(1, 2)

        q, k, v = apart(q), apart(k), apart(v)
        scale = {"no scale": 1.0, "scale of the width": WIDTH**-0.5}.get(self.fault, size**-0.5)
        hidden = self.mask if hidden is None else hidden
        if self.form == "one call":
            seen = None if hidden is None else ~hidden
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
            weights = None
        else:
            scores = (
                torch.einsum("nhqd,nhkd->nhqk", q, k) * scale
                if self.form == "einsum"
                else (q * scale) @ k.transpose(-1, -2)
            )
            if hidden is not None:
                scores = scores.masked_fill(hidden, -math.inf)
            weights = scores.softmax(-2 if self.fault == "axis" else -1)
            y = weights @ v
        y = self.out(y.transpose(1, 2).reshape(n, length, WIDTH))
        if not self.weights:
            return y, None
        assert weights is not None
        return y, weights if self.weights == "each" else weights.mean(1)


class Direct(Attending):
    """By the function of `nn.MultiheadAttention` with the weights of three linear layers, as CLIP's pooling does."""

    def __init__(self) -> None:
        super().__init__("placed")
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `Attending`."""
        biases = torch.cat([self.q.bias, self.k.bias, self.v.bias])
        q, k, v = (each.transpose(0, 1) for each in (q, k, v))
        y, _ = F.multi_head_attention_forward(
            q,
            k,
            v,
            WIDTH,
            HEADS,
            None,
            biases,
            None,
            None,
            False,
            0.0,
            self.out.weight,
            self.out.bias,
            training=False,
            need_weights=False,
            use_separate_proj_weight=True,
            q_proj_weight=self.q.weight,
            k_proj_weight=self.k.weight,
            v_proj_weight=self.v.weight,
        )
        return y.transpose(0, 1), None


class Decoder(nn.Module):
    """torch's own decoder of two layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 16, 0.0, batch_first=True)
        self.layers = nn.TransformerDecoder(layer, 2)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(N, L, E) and (N, S, E) to (N, L, E)."""
        found: Tensor = self.layers(x, memory)
        return found


class DecoderByHand(nn.Module):
    """The same, of linear layers; `fault` is in the attention to the memory of the second layer."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(), DecoderLayer(fault)])

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(N, L, E) and (N, S, E) to (N, L, E)."""
        for layer in self.layers:
            x = layer(x, memory)
        return x


class DecoderLayer(nn.Module):
    """An attention to itself, one to the memory, and a perceptron."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.inner, self.across = Bare(""), Bare(fault)
        self.up, self.down = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(N, L, E) and (N, S, E) to (N, L, E)."""
        x = self.norms[0](x + self.inner(x, x))
        x = self.norms[1](x + self.across(x, memory))
        found: Tensor = self.norms[2](x + self.down(torch.relu(self.up(x))))
        return found


class Bare(nn.Module):
    """Four linear layers and a softmax."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.size = WIDTH if fault else HEAD

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(N, L, E) and (N, S, E) to (N, L, E)."""
        q, k, v = (
            each.view(len(x), -1, HEADS, HEAD).transpose(1, 2)
            for each in (self.q(x), self.k(memory), self.v(memory))
        )
        y = (q @ k.transpose(2, 3) / self.size**0.5).softmax(-1) @ v
        found: Tensor = self.out(y.transpose(1, 2).reshape(len(x), -1, WIDTH))
        return found
