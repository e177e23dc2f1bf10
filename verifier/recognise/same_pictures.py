"""Telling that two batches show the same pictures though no map of their values is exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from verifier.recognise.slices import order_of_slices

if TYPE_CHECKING:
    from torch import Tensor

    from verifier.recognise.reals import Reals

ALIKE = 0.8  # least correlation of one picture sampled twice; two photographs of a batch stay below it
THUMBNAIL = 16
SAMPLES = 4
LEAST_OVERLAP = 0.25
SMOOTHER = 0.97


@dataclass(frozen=True, slots=True)
class Alike:
    """The same picture, sampled otherwise; `crop` is where the baseline's begins inside the candidate's."""

    summary: str
    evidence: tuple[str, ...]
    crop: tuple[int, int] | None = None


def same_samples(two: Reals) -> Tensor | None:
    """`order` such that candidate sample i is baseline sample order[i]."""
    if two.baseline.ndim < 2:
        return None
    order = order_of_slices(two.candidate, two.baseline, 0)
    if order is None or not two.fits(two.candidate, two.baseline[order]):
        return None
    return order


def relate_pictures(two: Reals) -> Alike | None:
    """How the candidate's pictures (N, C, H, W) were sampled, if they are the baseline's."""
    c, b = two.candidate, two.baseline
    if c.ndim != 4 or b.ndim != 4 or c.shape[:2] != b.shape[:2]:
        return None
    if not (bool(c.isfinite().all()) and bool(b.isfinite().all())):
        return None
    if min(*c.shape[2:], *b.shape[2:]) < 2:
        return None
    shifted = _shifted(two)
    if shifted is not None:
        return shifted
    grey_c, grey_b = (tensor.double().mean(1) for tensor in (c, b))
    thumbnails = (_thumbnail(grey, two) for grey in (grey_c, grey_b))
    correlation = _correlation(*thumbnails)
    if c.shape == b.shape:
        correlation = max(correlation, _correlation(grey_c, grey_b))
    if not correlation > ALIKE:
        return None
    evidence = [f"correlation {correlation:.4f}"]
    if c.shape != b.shape:
        (h, w), (height, width) = c.shape[2:], b.shape[2:]
        return Alike(f"shows the same picture at {h} x {w} instead of {height} x {width}", tuple(evidence))
    detail = _detail(grey_c) / _detail(grey_b) if _detail(grey_b) > 0 else 1.0
    if detail < SMOOTHER:
        evidence.append(f"smoother: {detail:.2f} of the baseline's differences between neighbouring pixels")
    elif detail > 1 / SMOOTHER:
        evidence.append(f"sharper: {detail:.2f} of the baseline's differences between neighbouring pixels")
    return Alike("shows the same picture, sampled otherwise", tuple(evidence))


def correlation_of(two: Reals) -> float:
    """Mean correlation of the samples of two finite batches of one shape."""
    return _correlation(two.candidate.double(), two.baseline.double())


def _correlation(one: Tensor, other: Tensor) -> float:
    rows = [tensor.reshape(len(tensor), -1) for tensor in (one, other)]
    unit = [torch.nn.functional.normalize(row - row.mean(1, keepdim=True), dim=1) for row in rows]
    return float((unit[0] * unit[1]).sum(1).mean())


def _thumbnail(grey: Tensor, two: Reals) -> Tensor:
    size = min(THUMBNAIL, *two.candidate.shape[2:], *two.baseline.shape[2:])
    return torch.nn.functional.adaptive_avg_pool2d(grey, size)


def _detail(grey: Tensor) -> float:
    """Root mean square of the differences between neighbours, relative to the spread."""
    steps = grey.diff(dim=1).square().mean() + grey.diff(dim=2).square().mean()
    spread = (grey - grey.mean((1, 2), keepdim=True)).square().mean()
    return float((steps / spread).sqrt().nan_to_num(0, 0, 0))


def _shifted(two: Reals) -> Alike | None:
    """Another crop: equal where both overlap, at the offset that the phase correlation has its peak at."""
    c, b = two.candidate, two.baseline
    (h, w), (height, width) = c.shape[2:], b.shape[2:]
    padded = (max(h, height), max(w, width))
    spectra = []
    for tensor in (c, b):
        grey = tensor[:SAMPLES].double().mean(1)
        grey = grey - grey.mean((1, 2), keepdim=True)
        spectra.append(torch.fft.rfft2(grey, s=padded))
    cross = spectra[0] * spectra[1].conj()
    peak = torch.fft.irfft2(cross / cross.abs().clamp(min=1e-30), s=padded).mean(0).argmax()
    down, right = (int(i) for i in torch.unravel_index(peak, padded))
    for dy in {down, down - padded[0]}:
        for dx in {right, right - padded[1]}:
            rows = (max(0, -dy), min(height, h - dy))
            columns = (max(0, -dx), min(width, w - dx))
            overlap = (rows[1] - rows[0]) * (columns[1] - columns[0])
            if (
                rows[1] <= rows[0]
                or columns[1] <= columns[0]
                or overlap < LEAST_OVERLAP * min(h * w, height * width)
            ):
                continue
            inside_b = b[..., rows[0] : rows[1], columns[0] : columns[1]]
            inside_c = c[..., rows[0] + dy : rows[1] + dy, columns[0] + dx : columns[1] + dx]
            if two.fits(inside_c, inside_b):
                size = "" if c.shape == b.shape else f", {h} x {w} instead of {height} x {width}"
                return Alike(
                    f"is another crop of the same picture{size}",
                    (f"equal to the baseline's where both overlap, moved by ({dy}, {dx}) pixels",),
                    (dy, dx) if overlap == height * width else None,
                )
    return None
