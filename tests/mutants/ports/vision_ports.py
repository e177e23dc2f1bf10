"""Ports of what networks for pictures are made of; channels are last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.mutants.ports.hosts import WIDTH, Port, Stored
from tests.mutants.ports.picture_regions import PICTURE

SMALL = (2, 4, 4, WIDTH)
LARGE = (2, 20, 20, WIDTH)  # more places than a kernel has weights


def first(x: Tensor) -> Tensor:
    """Channels first."""
    return x.permute(0, 3, 1, 2)


def last(x: Tensor) -> Any:
    """Channels last."""
    return x.permute(0, 2, 3, 1)


def _norm(m: Any) -> None:
    m.norm = nn.BatchNorm2d(WIDTH)
    m.norm.running_mean, m.norm.running_var = torch.randn(WIDTH) / 2, torch.rand(WIDTH) / 10
    m.norm.weight.copy_(m.weight)
    m.norm.bias.copy_(m.bias)


def _unbiased(m: Any) -> None:
    m.conv.bias = None
    _norm(m)


unbiased_convolution = Stored(_unbiased, lambda m, x: last(m.norm(m.conv(first(x)))))
normalised_convolution = Stored(_norm, lambda m, x: last(m.norm(m.conv(first(x)))))


def folded(eps: float = 1e-5, shifted: bool = True, biased: bool = True) -> Stored:
    """The norm in the convolution's weights, rounded to float32; not `shifted`: its running mean is left out."""

    def make(m: Any) -> None:
        _norm(m)
        norm = m.norm.double()
        scale = norm.weight / (norm.running_var + eps).sqrt()
        mean = norm.running_mean if shifted else 0.0
        bias = ((m.conv.bias.double() if biased else 0.0) - mean) * scale + norm.bias
        m.conv.weight.copy_(m.conv.weight.double() * scale[:, None, None, None])
        m.conv.bias.copy_(bias)
        del m.norm

    return Stored(make, lambda m, x: last(m.conv(first(x))))


def norm_by_hand(eps: float = 1e-5) -> Stored:
    def run(m: Any, x: Tensor) -> Any:
        scale = m.norm.weight * torch.rsqrt(m.norm.running_var + eps)
        return last(m.conv(first(x))) * scale + (m.norm.bias - m.norm.running_mean * scale)

    return Stored(_norm, run)


def squeezed(m: Any, x: Tensor) -> Any:
    h = F.adaptive_avg_pool2d(first(x), 1)
    h = F.relu(F.conv2d(h, m.q.weight[:, :, None, None], m.q.bias))
    return last(first(x) * F.conv2d(h, m.k.weight[:, :, None, None], m.k.bias).sigmoid())


def squeezed_by_linear(gate: Any = torch.sigmoid, hidden: Any = torch.relu, most: bool = False) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = x.amax((1, 2)) if most else x.mean((1, 2))
        return x * gate(m.k(hidden(m.q(h))))[:, None, None]

    return run


def hard_gate(m: Any, x: Tensor) -> Any:
    return x * F.hardsigmoid(m.q(x) * 3)


def hard_gate_by_hand(slope: float = 1 / 6) -> Any:
    return lambda m, x: x * torch.clamp((m.q(x) * 3) * slope + 0.5, 0, 1)


def responded(m: Any, x: Tensor) -> Any:
    length = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    return m.bias + (m.weight * (length / (length.mean(-1, keepdim=True) + 1e-6)) + 1) * x


def responded_by_sums(dim: int = -1, kept: bool = True) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        length = x.square().sum((1, 2), keepdim=True).sqrt()
        made = x * (length / (length.mean(dim, keepdim=True) + 1e-6)) * m.weight + m.bias
        return made + x if kept else made

    return run


def instance(m: Any, x: Tensor) -> Any:
    return last(F.instance_norm(first(x), weight=m.weight, bias=m.bias))


def instance_by_hand(correction: int = 0, dims: tuple[int, ...] = (1, 2)) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        variance, mean = torch.var_mean(x, dims, correction=correction, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * m.weight + m.bias

    return run


def patches(m: Any, x: Tensor) -> Any:
    return last(F.conv2d(first(x), m.merge.weight.view(WIDTH, WIDTH, 2, 2), m.merge.bias, 2))


def patches_by_linear(axes: tuple[int, ...] = (0, 1, 3, 5, 2, 4)) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        b, h, w, c = x.shape
        return m.merge(x.view(b, h // 2, 2, w // 2, 2, c).permute(axes).reshape(b, h // 2, w // 2, 4 * c))

    return run


def patches_by_unfold(m: Any, x: Tensor) -> Any:
    b, h, w, _ = x.shape
    return m.merge(F.unfold(first(x), 2, stride=2).mT.view(b, h // 2, w // 2, -1))


def depth(m: Any, x: Tensor) -> Any:
    return m.merge(last(F.pixel_unshuffle(first(x), 2)))


def sampled(m: Any, x: Tensor) -> Any:
    return last(F.interpolate(first(x), scale_factor=2, mode="bilinear", align_corners=False))


def sampled_by_grid(aligned: bool = False, padding: str = "border") -> Any:
    def run(m: Any, x: Tensor) -> Any:
        size = 2 * x.shape[1]
        at = (torch.arange(size, dtype=x.dtype) * 2 + 1) / size - 1
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).expand(x.shape[0], -1, -1, -1)
        return last(F.grid_sample(first(x), grid, "bilinear", padding, align_corners=aligned))

    return run


def highest(m: Any, x: Tensor) -> Any:
    return last(F.max_pool2d(first(x), 3, 2, 1))


def highest_by_windows(fill: float = -torch.inf) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        h = F.pad(first(x), (1, 1, 1, 1), value=fill)
        return last(h.unfold(2, 3, 2).unfold(3, 3, 2).amax((-2, -1)))

    return run


def channels(m: Any, x: Tensor) -> Any:
    return last(F.channel_shuffle(first(m.q(x)), 2))


def channels_by_view(groups: int = 2) -> Any:
    return lambda m, x: m.q(x).unflatten(-1, (groups, -1)).transpose(-2, -1).flatten(-2)


def halved(m: Any, x: Tensor) -> Any:
    return last(F.adaptive_avg_pool2d(first(x), 2))


def halved_by_view(axes: tuple[int, ...] = (2, 4)) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        b, h, w, c = x.shape
        made = x.reshape(b, 2, h // 2, 2, w // 2, c).mean(axes)
        return made.reshape(b, 2, 2, c)

    return run


def standardised(m: Any, x: Tensor) -> Any:
    w = m.conv.weight
    w = F.batch_norm(w.view(1, WIDTH, -1), None, None, training=True, eps=1e-5).view_as(w)
    return last(F.conv2d(first(x), w, m.conv.bias, 2))


def standardised_by_hand(correction: int = 0, centred: bool = True) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        w = m.conv.weight
        variance = w.var((1, 2, 3), correction=correction, keepdim=True)
        w = w - w.mean((1, 2, 3), keepdim=True) if centred else w
        return last(F.conv2d(first(x), w / torch.sqrt(variance + 1e-5), m.conv.bias, 2))

    return run


def windows(m: Any, x: Tensor) -> Any:
    """Attention within windows of 4 x 4."""
    b, h, w, c = x.shape
    parts = x.view(b, h // 4, 4, w // 4, 4, c).transpose(2, 3).reshape(-1, 16, c)
    made = F.scaled_dot_product_attention(m.q(parts), m.k(parts), m.v(parts))
    return made.view(b, h // 4, w // 4, 4, 4, c).transpose(2, 3).reshape(x.shape)


def windows_by_unfold(back: tuple[int, ...] = (0, 1, 3, 2, 4, 5), scale: float = 4.0) -> Any:
    def run(m: Any, x: Tensor) -> Any:
        b, h, w, c = x.shape
        parts = x.unfold(1, 4, 4).unfold(2, 4, 4).permute(0, 1, 2, 4, 5, 3).flatten(3, 4)
        shares = (m.q(parts) @ m.k(parts).mT / scale).softmax(-1)
        made = (shares @ m.v(parts)).view(b, h // 4, w // 4, 4, 4, c)
        return made.permute(back).reshape(x.shape)

    return run


VISION_PORTS: dict[str, Port] = {
    "eps of a folded norm": Port(
        unbiased_convolution,
        folded(biased=False),
        folded(1e-3, biased=False),
        "weight|stored|eps|folded",
        LARGE,
    ),
    "folded norm without its mean": Port(
        normalised_convolution, folded(), folded(shifted=False), "bias|weight|stored|folded", PICTURE
    ),
    "eps of a batch norm by hand": Port(
        normalised_convolution, norm_by_hand(), norm_by_hand(1e-3), r"1e-05|1e-5", PICTURE
    ),
    "gate of a squeeze": Port(
        squeezed, squeezed_by_linear(), squeezed_by_linear(gate=F.hardsigmoid), "sigmoid", PICTURE
    ),
    "hidden of a squeeze": Port(
        squeezed, squeezed_by_linear(), squeezed_by_linear(hidden=F.silu), "relu|silu", PICTURE
    ),
    "maximum in a squeeze": Port(
        squeezed, squeezed_by_linear(), squeezed_by_linear(most=True), "amax|mean", PICTURE
    ),
    "slope of a hard gate": Port(
        hard_gate, hard_gate_by_hand(), hard_gate_by_hand(0.2), r"0\.1666|1/6|\b6\b", PICTURE
    ),
    "response along another axis": Port(
        responded, responded_by_sums(), responded_by_sums(1), "dim of mean", PICTURE
    ),
    "response without its input": Port(
        responded, responded_by_sums(), responded_by_sums(kept=False), r"\badd\b", PICTURE
    ),
    "unbiased instance norm": Port(
        instance, instance_by_hand(), instance_by_hand(1), "unbiased|correction", PICTURE
    ),
    "instance norm of channels": Port(
        instance, instance_by_hand(), instance_by_hand(dims=(1, 2, 3)), "dim", PICTURE
    ),
    "patches with channels last": Port(
        patches, patches_by_linear(), patches_by_linear((0, 1, 3, 2, 4, 5)), r"order|permut|\bax", PICTURE
    ),
    "patches with sides exchanged": Port(
        patches,
        patches_by_linear(),
        patches_by_linear((0, 1, 3, 5, 4, 2)),
        r"order|permut|\bax|exchang",
        PICTURE,
    ),
    "patches unfolded": Port(
        patches,
        patches_by_unfold,
        patches_by_linear((0, 1, 3, 4, 2, 5)),
        r"order|permut|\bax|exchang",
        PICTURE,
    ),
    "depth with blocks first": Port(
        depth, patches_by_linear(), patches_by_linear((0, 1, 3, 2, 4, 5)), r"order|permut|\bax", PICTURE
    ),
    "corners of a grid": Port(
        sampled, sampled_by_grid(), sampled_by_grid(aligned=True), "align_corners", SMALL
    ),
    "border of a grid": Port(
        sampled, sampled_by_grid(), sampled_by_grid(padding="zeros"), "padding_mode|border", SMALL
    ),
    # What a margin of one reflects is within the same window, so that reflecting is right, too.
    "zeros in a maximum": Port(
        highest, highest_by_windows(), highest_by_windows(0.0), "inf|value|reflect", PICTURE
    ),
    "channels shuffled back": Port(
        channels, channels_by_view(), channels_by_view(8), r"order|\bax|2.*8|8.*2|group", PICTURE
    ),
    "pooled in stripes": Port(halved, halved_by_view(), halved_by_view((1, 3)), r"\bdim|order|\bax", SMALL),
    "weights standardised unbiased": Port(
        standardised, standardised_by_hand(), standardised_by_hand(1), "unbiased|correction", PICTURE
    ),
    "weights not centred": Port(
        standardised,
        standardised_by_hand(),
        standardised_by_hand(centred=False),
        r"\bsub\b|mean|offset",
        PICTURE,
    ),
    "windows put back as they lie": Port(
        windows, windows_by_unfold(), windows_by_unfold((0, 1, 2, 3, 4, 5)), r"order|permut|\bax", PICTURE
    ),
    "scale in windows": Port(
        windows, windows_by_unfold(), windows_by_unfold(scale=2.0), r"\b4\b|4\.0|0\.25", PICTURE
    ),
}
