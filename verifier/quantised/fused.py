"""Whether a form as it is shipped gives what its operators give one by one, but for rounding once more.

Kernels of whole numbers may round a tie the other way, or once more: to the code beside at most. That adds to the
noise of rounding at first, which is known, and has either sign. What it adds is held against that noise over all
outputs, and for each channel and sample by itself, which many that are right would hide.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from verifier.quantised.outputs import between, changed, joined, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    Batches = Sequence[Sequence[Tensor]]

# A code is off by half a step at most where it is rounded at first, and by one where it is rounded once more.
_ONCE_MORE = 2.0
_ALIKE = 1.0  # of the noise: what all of a slice may be off alike, since codes go up as often as down
_CHANCE = (
    1e-4  # how often one of many slices may be taken for wrong where rounding once more doubles the noise
)
_FEW = 3  # numbers of which nothing is told by what they have in common


class Fused(NamedTuple):
    """How a form as it is shipped compares with its operators.

    Attributes:
        near: Whether rounding once more explains what it is apart.
        error: What it is apart: NRMSE, or the share of whole numbers that are others where there is nothing else.
        exact: Whether all numbers are the same.
        where: The slice that is too far apart where all together is not; empty elsewhere.
    """

    near: bool
    error: float
    exact: bool
    where: str = ""


def fused(reference: Batches, plain: Batches, shipped: Batches) -> Fused:
    """Compare what is shipped with its operators.

    Args:
        reference: What the form returns with nothing rounded, batch for batch.
        plain: What its operators return one by one.
        shipped: What it returns as it is shipped.
    """
    apart, noise = between(plain, shipped), between(reference, plain)
    flips, usual = changed(plain, shipped) or 0.0, changed(reference, plain) or 0.0
    exact = (apart is None or apart.max_abs == 0) and not flips
    near = apart is None or apart.within(_ONCE_MORE * (noise.nrmse if noise else 0.0))
    near = near and flips <= _ONCE_MORE * usual
    error = flips if apart is None else apart.nrmse
    if exact or not near:
        return Fused(near, error, exact)
    where = next(_beyond(joined(reference), joined(plain), joined(shipped)), "")
    return Fused(not where, error, exact, where)


def _beyond(reference: Sequence[Tensor], plain: Sequence[Tensor], shipped: Sequence[Tensor]) -> Iterator[str]:
    """Slices of outputs that rounding once more does not explain."""
    for position, (right, one, other) in enumerate(zip(reference, plain, shipped, strict=True)):
        if whole(one) or not right.shape == one.shape == other.shape or not one.numel():
            continue
        noise, apart = (one - right).double(), (other - one).double()
        known = noise.isfinite() & apart.isfinite()  # what is not is judged over all
        noise, apart = (each.where(known, 0.0) for each in (noise, apart))
        usual = noise.square().mean().sqrt()
        for dim, count in enumerate(one.shape):
            numbers = one.numel() // count
            if count < 2 or numbers < _FEW:
                continue
            rest = [each for each in range(one.dim()) if each != dim]
            allowed = noise.square().mean(rest).sqrt().clamp_min(float(usual))
            chance = -NormalDist().inv_cdf(_CHANCE / count) / numbers**0.5
            size, alike = apart.square().mean(rest).sqrt(), apart.mean(rest).abs()
            far = (size > (_ONCE_MORE + chance) * allowed) | (alike > (_ALIKE + chance) * allowed)
            if bool(far.any()):
                yield f"{int(far.double().argmax())} of dimension {dim} of output {position}"
