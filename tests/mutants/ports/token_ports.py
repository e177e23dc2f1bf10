"""Ports of what language models are made of: norms, stored tables, fused weights, attention, routers, gates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mutants.ports.hosts import WIDTH, Port, Stored
from tests.mutants.ports.regions import attention, heads, rms, sdpa


def rms_around_one(offset: float = 1.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        scale = m.bias + offset if offset else m.bias
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * scale

    return run


def rms_by_length(scale: float = 1.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / length * (scale * WIDTH**0.5) * m.weight

    return run


def gated_norm(m: Any, x: Tensor) -> Any:
    return F.rms_norm(x * F.silu(m.q(x)), (WIDTH,), m.weight, 1e-5)


def gated_norm_by_hand(first: bool = True) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        gate = m.q(x)
        gate = gate * torch.sigmoid(gate)
        h = x * gate if first else x
        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)
        h = m.weight * h
        return h if first else h * gate

    return run


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer with this weight and bias."""
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.copy_(weight)
    made.bias.copy_(bias)
    return made


def _fused(m: Any) -> None:
    m.qkv = linear(torch.cat([m.q.weight, m.k.weight, m.v.weight]), torch.cat([m.q.bias, m.k.bias, m.v.bias]))
    del m.q, m.k, m.v


def fused_heads(by_head: bool = False) -> Stored:
    """One matrix for queries, keys and values; `by_head` reads its rows as if each head had its three together."""

    def run(m: Any, x: Tensor) -> Any:
        made = m.qkv(x)
        if by_head:
            q, k, v = made.view(*x.shape[:2], 4, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = made.view(*x.shape[:2], 3, 4, -1).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    return Stored(_fused, run)


def _adapter(m: Any) -> None:
    m.down, m.back = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)


adapted = Stored(_adapter, lambda m, x: m.q(x) + 2.0 * m.back(m.down(x)))


def merged_adapter(scale: float = 2.0) -> Stored:
    def make(m: Any) -> None:
        _adapter(m)
        extra = m.back.weight.double() @ m.down.weight.double()
        m.q = linear((m.q.weight.double() + scale * extra).float(), m.q.bias)
        del m.down, m.back

    return Stored(make, lambda m, x: m.q(x))


def _angles(length: int, base: float, dtype: torch.dtype) -> Tensor:
    rate = base ** (-torch.arange(0, WIDTH, 2, dtype=dtype) / WIDTH)
    return torch.outer(torch.arange(length, dtype=dtype), rate)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    one, other = x.chunk(2, -1)
    return x * cos.repeat(1, 2) + torch.cat([-other, one], -1) * sin.repeat(1, 2)


def rotary_computed(m: Any, x: Tensor) -> Any:
    angle = _angles(x.shape[1], 10000.0, x.dtype)
    return _turned(x, angle.cos(), angle.sin())


def rotary_stored(base: float = 10000.0, swapped: bool = False) -> Stored:
    def make(m: Any) -> None:
        angle = _angles(32, base, torch.float32)
        m.register_buffer("cos", angle.cos())
        m.register_buffer("sin", angle.sin())

    def run(m: Any, x: Tensor) -> Any:
        cos, sin = m.cos[: x.shape[1]], m.sin[: x.shape[1]]
        return _turned(x, sin, cos) if swapped else _turned(x, cos, sin)

    return Stored(make, run)


def rotary_halves(m: Any, x: Tensor) -> Any:
    angle = torch.outer(torch.arange(x.shape[1], dtype=x.dtype), m.weight[: WIDTH // 2].detach())
    return _turned(m.q(x), angle.cos(), angle.sin())


def rotary_parts(paired: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * m.weight[: WIDTH // 2].detach()
        x = m.q(x)
        one, other = (x[..., ::2], x[..., 1::2]) if paired else (x[..., : WIDTH // 2], x[..., WIDTH // 2 :])
        parts = [one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()]
        return torch.stack(parts, -1).flatten(-2) if paired else torch.cat(parts, -1)

    return run


def grouped_by_repeat(m: Any, x: Tensor) -> Any:
    k, v = (heads(part[..., :8], 2).repeat_interleave(2, 1) for part in (m.k(x), m.v(x)))
    return F.scaled_dot_product_attention(heads(m.q(x)), k, v).transpose(1, 2).flatten(2)


def grouped_by_einsum(tiled: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        q, k, v = heads(m.q(x)), heads(m.k(x)[..., :8], 2), heads(m.v(x)[..., :8], 2)
        q = q.unflatten(1, (2, 2))
        q = q.transpose(1, 2) if tiled else q
        shares = torch.einsum("bgrid,bgjd->bgrij", q, k).div(2).softmax(-1)
        made = torch.einsum("bgrij,bgjd->bgrid", shares, v)
        return (made.transpose(1, 2) if tiled else made).flatten(1, 2).transpose(1, 2).flatten(2)

    return run


def attention_with_added_mask(least: float = -1e30, multiplied: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        seen = torch.ones(x.shape[1], x.shape[1], dtype=x.dtype).tril()
        scores = heads(m.q(x)) @ heads(m.k(x)).mT / 2
        scores = scores * seen if multiplied else scores + (1 - seen) * least
        return (scores.softmax(-1) @ heads(m.v(x))).transpose(1, 2).flatten(2)

    return run


def capped(m: Any, x: Tensor) -> Any:
    return F.softmax(torch.tanh(m.q(x) @ m.k(x).mT / 5) * 5, -1) @ x


def capped_by_hand(cap: float = 5.0, back: bool = True) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        scores = torch.tanh(torch.einsum("bic,bjc->bij", m.q(x), m.k(x)).mul(1 / cap))
        scores = scores * cap if back else scores
        return torch.einsum("bij,bjc->bic", scores.exp() / scores.exp().sum(-1, keepdim=True), x)

    return run


def routed(m: Any, x: Tensor) -> Any:
    scores = torch.sigmoid(m.q(x)[..., :4])
    chosen = (scores + m.bias[:4]).topk(2, -1).indices
    shares = scores.gather(-1, chosen)
    shares = 2.5 * shares / (shares.sum(-1, keepdim=True) + 1e-20)
    made = m.gate(x).unflatten(-1, (4, WIDTH))
    return (made.gather(-2, chosen[..., None].expand(-1, -1, -1, WIDTH)) * shares[..., None]).sum(-2)


def routed_by_mask(scale: float = 2.5, biased: bool = False, shared: bool = True, soft: bool = False) -> Any:
    """`biased`: the shares keep the bias that only the choice should see."""

    def run(m: Any, x: Tensor) -> Any:
        logits = m.q(x)[..., :4]
        scores = logits.softmax(-1) if soft else 1 / (1 + torch.exp(-logits))
        order = scores + m.bias[:4]
        least = order.sort(-1, descending=True).values[..., 1:2]
        shares = torch.where(order >= least, order if biased else scores, 0.0)
        shares = shares / shares.sum(-1, keepdim=True) if shared else shares
        return torch.einsum("...e,...ec->...c", shares * scale, m.gate(x).unflatten(-1, (4, WIDTH)))

    return run


def interleaved_gate(m: Any, x: Tensor) -> Any:
    h = m.up(x)
    gate, value = h[..., ::2].clamp(max=0.7), h[..., 1::2].clamp(-0.7, 0.7)
    return (value + 1) * gate * torch.sigmoid(1.702 * gate)


def interleaved_gate_by_view(
    limit: float = 0.7, halves: bool = False, one: bool = True, slope: float = 1.702
) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = m.up(x)
        gate, value = h.chunk(2, -1) if halves else h.unflatten(-1, (-1, 2)).unbind(-1)
        gate, value = gate.minimum(gate.new_tensor(limit)), value.clamp(-limit, limit)
        gate = gate / (1 + torch.exp(-slope * gate))
        return torch.addcmul(gate, gate, value) if one else gate * value

    return run


def tanh_gelu_by_hand(cubic: float = 0.044715, exact: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = m.q(x) * 3
        if exact:
            return F.gelu(h)
        return 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + cubic * h * h * h)))

    return run


def masked_mean(m: Any, x: Tensor) -> Any:
    seen = (torch.arange(x.shape[1]) < 4).to(x.dtype)[:, None]
    return (x * seen).sum(1) / seen.sum().clamp(min=1e-9)


def masked_mean_by_slice(last: int = 4) -> Any:
    return lambda m, x: x[:, :last].mean(1)


TOKEN_PORTS: dict[str, Port] = {
    "weight without its one": Port(
        lambda m, x: F.rms_norm(x, (WIDTH,), 1 + m.bias, 1e-5),
        rms_around_one(),
        rms_around_one(0),
        r"\badd\b|1\.0|offset",
    ),
    "norm by length": Port(
        lambda m, x: F.normalize(x, dim=-1) * WIDTH**0.5 * m.weight,
        rms_by_length(),
        rms_by_length(0.25),
        r"4\.0|\b4\b|factor",
    ),
    "mean for the root mean square": Port(
        rms,
        lambda m, x: x / (x.norm(dim=-1, keepdim=True).square() / WIDTH + 1e-5).sqrt() * m.weight,
        lambda m, x: x / (x.norm(dim=-1, keepdim=True).square() + 1e-5).sqrt() * m.weight,
        r"div|16|mean",
    ),
    "gate behind the norm": Port(
        gated_norm,
        gated_norm_by_hand(),
        gated_norm_by_hand(first=False),
        "mul.*norm|norm.*mul|order|mul.*(pow|mean|rsqrt)",
    ),
    "fused rows by head": Port(
        sdpa, fused_heads(), fused_heads(by_head=True), r"order|\bax|permut|unflatten|view"
    ),
    "adapter merged unscaled": Port(adapted, merged_adapter(), merged_adapter(1.0), "weight|stored"),
    "base of a stored table": Port(
        rotary_computed, rotary_stored(), rotary_stored(1000.0), "10000|buffer|stored|constant|cos|sin"
    ),
    "stored tables exchanged": Port(
        rotary_computed, rotary_stored(), rotary_stored(swapped=True), "exchang|order|sin|cos|reads"
    ),
    "rotation of pairs for halves": Port(
        rotary_halves,
        rotary_parts(),
        rotary_parts(paired=True),
        "order|interleav|pair|reads|getitem|start|step",
    ),
    "queries grouped in another order": Port(
        grouped_by_repeat, grouped_by_einsum(), grouped_by_einsum(tiled=True), r"order|\bax|transpose|exchang"
    ),
    "mask multiplied": Port(
        lambda m, x: sdpa(m, x, causal=True),
        attention_with_added_mask(),
        attention_with_added_mask(multiplied=True),
        r"\bmul\b|mask|fill|\badd\b",
    ),
    "mask too small": Port(
        lambda m, x: sdpa(m, x, causal=True),
        attention_with_added_mask(),
        attention_with_added_mask(-1.0),
        r"-1\.0|inf|fill|constant",
    ),
    "mask filled with zero": Port(
        lambda m, x: sdpa(m, x, causal=True),
        attention(diagonal=1),
        attention(diagonal=1, fill=0.0),
        r"inf|value|fill",
    ),
    "cap of scores": Port(capped, capped_by_hand(), capped_by_hand(3.0), r"\b5\b|5\.0|0\.2", culprits=2),
    "cap not undone": Port(capped, capped_by_hand(), capped_by_hand(back=False), r"\bmul\b|5"),
    "shares of experts unscaled": Port(routed, routed_by_mask(), routed_by_mask(1.0), r"2\.5"),
    "bias in the shares of experts": Port(
        routed, routed_by_mask(), routed_by_mask(biased=True), r"reads|\badd\b|source"
    ),
    "shares of experts not shared out": Port(
        routed, routed_by_mask(), routed_by_mask(shared=False), r"\bdiv\b|sum"
    ),
    "softmax for sigmoid in a router": Port(
        routed, routed_by_mask(), routed_by_mask(soft=True), "softmax|sigmoid"
    ),
    "gate in halves": Port(
        interleaved_gate,
        interleaved_gate_by_view(),
        interleaved_gate_by_view(halves=True),
        "order|interleav|chunk|reads",
    ),
    "limit of a gate": Port(
        interleaved_gate, interleaved_gate_by_view(), interleaved_gate_by_view(0.5), r"0\.7"
    ),
    "value of a gate without its one": Port(
        interleaved_gate,
        interleaved_gate_by_view(),
        interleaved_gate_by_view(one=False),
        r"\badd\b|1\.0|addcmul|offset",
    ),
    "slope of a limited gate": Port(
        interleaved_gate, interleaved_gate_by_view(), interleaved_gate_by_view(slope=1.0), r"1\.702"
    ),
    "cubic of a gelu": Port(
        lambda m, x: F.gelu(m.q(x) * 3, approximate="tanh"),
        tanh_gelu_by_hand(),
        tanh_gelu_by_hand(0.0044715),
        r"0\.0447",
    ),
    "exact gelu for its tanh": Port(
        lambda m, x: F.gelu(m.q(x) * 3, approximate="tanh"),
        tanh_gelu_by_hand(),
        tanh_gelu_by_hand(exact=True),
        "approximate|tanh",
    ),
    "pads in the mean of tokens": Port(
        masked_mean, masked_mean_by_slice(), masked_mean_by_slice(6), "end|stop|getitem|narrow|idx"
    ),
}
