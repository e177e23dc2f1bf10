"""What the programs of a fused kernel found about a pair, and its reduction on the device."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from verifier.metrics.kernel_torch import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Columns of a program's row. Numbers of elements are below 2^53: float64 holds them exactly.
SUMS = 9  # of u, v, e, uu, vv, uv, ee, ue and dd, in this order from column 0 on
RATIO, TOP, TOP_AT, BAD_A, BAD_B, BAD, MISMATCHED, MISMATCH_AT, FIRST = range(SUMS, SUMS + 9)
WIDTH = SUMS + 9
# Columns of the frame's row, before those of the programs: the five numbers of a `Frame` in their order, and the
# number of elements.
ELEMENTS = 5
# A place above that of every element: what is looked for was not found.
NOWHERE = 1 << 53


@dataclass(frozen=True, slots=True)
class Partials:
    """What is known of a pair whose kernel was launched, on the device: nothing has waited for it.

    `values` are float64 of shape (1 + programs, `WIDTH`): the frame's row, then one row for each program.
    """

    values: Tensor
    shape: tuple[int, ...]
    offset: int


def as_rows(measured: Sequence[Partials | Rows]) -> list[Rows]:
    """All as rows of `kernel_torch`, in order: a few launches whatever their number, and nothing waits."""
    alike: dict[tuple[torch.device, int], list[int]] = defaultdict(list)
    rows: dict[int, Rows] = {}
    for k, each in enumerate(measured):
        if isinstance(each, Partials):
            alike[each.values.device, len(each.values)].append(k)
        else:
            rows[k] = each
    for numbers in alike.values():
        partials = [each for k in numbers if isinstance(each := measured[k], Partials)]
        lines = _reduced(torch.stack([each.values for each in partials]))[:, None].unbind()
        for k, each, line in zip(numbers, partials, lines, strict=True):
            rows[k] = Rows(line, each.shape, 1, each.offset)
    return [rows[k] for k in range(len(measured))]


def _reduced(values: Tensor) -> Tensor:
    """Values of shape (pairs, 1 + programs, `WIDTH`) to one row of `kernel_torch.WIDTH` for each pair."""
    frame, found = values[:, 0], values[:, 1:]
    sums = found[..., :SUMS].sum(dim=1)
    counts = found[..., BAD_A : MISMATCHED + 1].sum(dim=1)
    bad_a, bad_b, bad, mismatched = counts.unbind(dim=1)
    mismatch_at, first = found[..., MISMATCH_AT:].amin(dim=1).unbind(dim=1)
    ratio, top = found[..., RATIO : TOP + 1].amax(dim=1).unbind(dim=1)
    here = found[..., TOP].eq(top[:, None])
    top_at = found[..., TOP_AT].masked_fill(~here, NOWHERE).amin(dim=1)
    elements = frame[:, ELEMENTS]
    tally = (
        elements,
        elements - bad,
        bad_a,
        bad_b,
        mismatched,
        mismatch_at,
        top,
        # Where nothing differs every finite element is the largest: the kernel looks for the first of them.
        torch.where(top.eq(0.0), first, top_at),
        ratio,
        sums[:, SUMS - 1],
    )
    return torch.cat((torch.stack(tally, dim=1), frame[:, :5], sums[:, : SUMS - 1]), dim=1)
