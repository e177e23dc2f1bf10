"""Regions of networks in several writings, with options that plant a fault: norms, attention, gates, tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.mutants.ports.hosts import WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable


def rms(m: Any, x: Tensor) -> Any:
    return F.rms_norm(x, (WIDTH,), m.weight, 1e-5)


def rms_by_hand(eps: float = 1e-5, outside: bool = False, groups: int = 1, exponent: float = 2) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        split = x.view(*x.shape[:-1], groups, -1) if groups > 1 else x
        mean = split.pow(exponent).mean(-1, keepdim=True)
        scaled = split / (mean.sqrt() + eps) if outside else split * torch.rsqrt(mean + eps)
        return scaled.view(x.shape) * m.weight

    return run


def layer(m: Any, x: Tensor) -> Any:
    return F.layer_norm(x, (WIDTH,), m.weight, m.bias, 1e-5)


def layer_by_hand(**options: Any) -> Any:
    eps, dim = options.pop("eps", 1e-5), options.pop("dim", -1)

    def run(m: Any, x: Tensor) -> Any:
        centred = x - x.mean(dim, keepdim=True)
        variance = x.var(-1, keepdim=True, **options)
        return centred / torch.sqrt(variance + eps) * m.weight + m.bias

    return run


def group(m: Any, x: Tensor) -> Any:
    return F.group_norm(x.transpose(1, 2), 4, m.weight, m.bias).transpose(1, 2)


def group_by_hand(groups: int, unbiased: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        b, n, c = x.shape
        split = x.transpose(1, 2).reshape(b, groups, -1)
        mean, variance = split.mean(-1, keepdim=True), split.var(-1, keepdim=True, unbiased=unbiased)
        split = (split - mean) * torch.rsqrt(variance + 1e-5)
        return split.view(b, c, n).transpose(1, 2) * m.weight + m.bias

    return run


def heads(x: Tensor, count: int = 4) -> Any:
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def sdpa(m: Any, x: Tensor, causal: bool = False) -> Any:
    q, k, v = heads(m.q(x)), heads(m.k(x)), heads(m.v(x))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def attention(
    scale: float = 0.5, dim: int = -1, diagonal: int | None = None, after: bool = False, crossed: bool = False,
    merged: bool = True, fill: float = -math.inf,
) -> Any:  # fmt: skip
    def run(m: Any, x: Tensor) -> Any:
        q, k, v = heads(m.q(x)), heads(m.k(x)), heads(m.v(x))
        scores = k @ q.transpose(-2, -1) if crossed else q @ k.transpose(-2, -1)
        scores = scores if after else scores * scale
        if diagonal is not None:
            hidden = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(diagonal)
            scores = scores.masked_fill(hidden, fill)
        shares = scores.softmax(dim)
        shares = shares * scale if after else shares
        made = shares @ v
        return made.transpose(1, 2).reshape(x.shape) if merged else made.reshape(x.shape)

    return run


def grouped_queries(repeat: Callable[[Tensor], Tensor]) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        q = heads(m.q(x), 4)
        k, v = heads(m.k(x)[..., :8], 2), heads(m.v(x)[..., :8], 2)
        k, v = repeat(k), repeat(v)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    return run


def expanded(x: Tensor) -> Any:
    return x[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)


def glu(m: Any, x: Tensor) -> Any:
    return F.glu(m.up(x), -1)


def glu_by_hand(swapped: bool = False, slope: float = 1.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        value, gate = m.up(x).chunk(2, -1)
        if swapped:
            value, gate = gate, value
        return value * torch.sigmoid(gate * slope if slope != 1 else gate)

    return run


def silu(m: Any, x: Tensor) -> Any:
    return F.silu(m.q(x))


def silu_by_hand(slope: float = 1.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = m.q(x)
        return h * torch.sigmoid(slope * h)

    return run


def gelu(m: Any, x: Tensor) -> Any:
    return F.gelu(m.q(x))


def gelu_by_hand(half: float = 0.5, root: float = math.sqrt(2)) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = m.q(x)
        return half * h * (1 + torch.erf(h / root))

    return run


def hardswish(m: Any, x: Tensor) -> Any:
    return F.hardswish(m.q(x) * 4)


def hardswish_by_hand(offset: float = 3.0, divisor: float = 6.0, most: float = 1.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = m.q(x) * 4
        return h * ((h + offset) / divisor).clamp(0.0, most)

    return run


def table(base: float = 10000.0, start: int = 0, exchanged: bool = False, interleaved: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        place = torch.arange(start, start + x.shape[1], dtype=x.dtype)[:, None]
        rate = base ** (-torch.arange(0, WIDTH, 2, dtype=x.dtype) / WIDTH)
        parts = [torch.sin(place * rate), torch.cos(place * rate)]
        if exchanged:
            parts.reverse()
        return x + (torch.stack(parts, -1).flatten(1) if interleaved else torch.cat(parts, -1))

    return run


def table_by_exp(base: float = 10000.0, start: int = 0, exchanged: bool = False, filled: bool = True) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        rate = torch.exp(torch.arange(0, WIDTH // 2, dtype=x.dtype) * (-2 * math.log(base) / WIDTH))
        angle = torch.outer(torch.arange(start, start + x.shape[1], dtype=x.dtype), rate)
        one, other = (angle.cos(), angle.sin()) if exchanged else (angle.sin(), angle.cos())
        return x + (torch.cat([one, other], -1) if filled else torch.stack([one, other], -1).flatten(1))

    return run


def rotary_complex(m: Any, x: Tensor) -> Any:
    angle = torch.outer(torch.arange(x.shape[1], dtype=x.dtype), m.weight[: WIDTH // 2].detach())
    turned = torch.complex(x[..., : WIDTH // 2], x[..., WIDTH // 2 :]) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([turned.real, turned.imag], -1)


def rotary(sign: float = 1.0, shift: int = 0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        angle = torch.outer(torch.arange(x.shape[1], dtype=x.dtype) + shift, m.weight[: WIDTH // 2].detach())
        angle = torch.cat([angle, angle], -1)
        one, other = x.chunk(2, -1)
        turned = torch.cat([-other, one], -1) if sign > 0 else torch.cat([other, -one], -1)
        return x * angle.cos() + turned * angle.sin()

    return run


def cosine(m: Any, x: Tensor) -> Any:
    return F.normalize(m.q(x), dim=-1) * 10


def cosine_by_hand(scale: float = 10.0, power: float = 2.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = m.q(x)
        length = h.abs().pow(power).sum(-1, keepdim=True).pow(1 / power)
        made: Tensor = h / length
        return made * scale if scale != 1 else made

    return run


def shares(m: Any, x: Tensor) -> Any:
    return F.log_softmax(x, -1)


def shares_by_hand(dim: int = -1, temperature: float = 1.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        x = x / temperature if temperature != 1 else x
        return x - x.logsumexp(dim, keepdim=True)

    return run


def first_norm(m: Any, x: Tensor) -> Any:
    return F.layer_norm(x + m.q(x), (WIDTH,))


def first_norm_by_hand(before: bool = False, factor: float = 1.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        branch = m.q(x)
        branch = branch * factor if factor != 1 else branch
        if before:
            return x + torch.native_layer_norm(branch, (WIDTH,), None, None, 1e-5)[0]
        return torch.native_layer_norm(x + branch, (WIDTH,), None, None, 1e-5)[0]

    return run


def windowed(m: Any, x: Tensor) -> Any:
    i = torch.arange(x.shape[1])
    keep = (i[:, None] >= i) & (i[:, None] - i < 3)
    shares = torch.where(keep, m.q(x) @ m.k(x).mT / 4, -math.inf).softmax(-1)
    return shares @ x


def windowed_by_band(width: int = 3, last: int = 0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        ones = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype)
        hidden = 1 - ones.tril(last).triu(1 - width)
        scores = (m.q(x) / 4) @ m.k(x).mT
        return scores.masked_fill(hidden > 0, -math.inf).softmax(-1) @ x

    return run


def biased(sign: float = 1.0, base: float = 2.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        i = torch.arange(x.shape[1], dtype=x.dtype)
        slope = base ** -torch.arange(1, 5, dtype=x.dtype)
        far = sign * (i[None] - i[:, None]) * slope[:, None, None]
        scores = heads(m.q(x)) @ heads(m.k(x)).mT * 0.5 + far
        return (scores.softmax(-1) @ heads(m.v(x))).transpose(1, 2).flatten(2)

    return run


def biased_by_sdpa(m: Any, x: Tensor) -> Any:
    i = torch.arange(x.shape[1], dtype=x.dtype)
    slope = 0.5 ** torch.arange(1, 5, dtype=x.dtype)
    far = torch.einsum("h,ij->hij", slope, i.view(1, -1) - i.view(-1, 1))
    q, k, v = heads(m.q(x)), heads(m.k(x)), heads(m.v(x))
    return F.scaled_dot_product_attention(q, k, v, far).transpose(1, 2).flatten(2)


def chosen(m: Any, x: Tensor) -> Any:
    shares, at = torch.topk(m.q(x).softmax(-1), 4, -1)
    return (m.gate(x).view(*x.shape, 4) * shares[..., None, :]).sum(-1) + at.to(x.dtype).mean()


def chosen_by_sort(first: bool = True, count: int = 4, renormalised: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        scores = m.q(x)
        if first:
            scores = scores.softmax(-1)
        shares, at = scores.topk(4, -1)
        if not first:
            shares = shares.softmax(-1)
        if renormalised:
            shares = shares / shares.sum(-1, keepdim=True)
        made = torch.einsum("bnce,bne->bnc", m.gate(x).view(*x.shape, 4), shares)
        return made + at.to(x.dtype).mean()

    return run


def normalised(values: tuple[float, ...]) -> Any:
    return lambda m, x: (
        x[..., :3] @ torch.eye(3, WIDTH, dtype=x.dtype) / torch.tensor(values, dtype=x.dtype).repeat(4)
    )


def pooled_tokens(m: Any, x: Tensor) -> Any:
    return x[:, 1:].mean(1)


def pooled_by_sum(start: int = 1, less: int = 1) -> Any:
    return lambda m, x: x[:, start:].sum(1) / (x.shape[1] - less)
