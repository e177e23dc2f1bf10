"""Differences that nothing behind them reads: what is masked out, cut off or multiplied by 0 afterwards.

That all behind a pair agrees is not enough to say so: a ReLU hides a wrong bias of a channel that happens to be
negative. So the elements in which the pair differs are changed, by more than the others' size and in both directions.
Where nothing was compared behind them that moves, what stands in them is of no account.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.align import Pair
from verifier.errors import GraphDepartureError, ModelError
from verifier.judge import differs
from verifier.lockstep import Comparing, Plan, overwrite, run
from verifier.proof.digests import Digest
from verifier.proof.excited import SAME, excited
from verifier.proof.readers import readers_of
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor

    from verifier.align import Alignment
    from verifier.bench.bench import Bench
    from verifier.judge import Judged
    from verifier.records import PairResult

_LARGE = (
    10.0  # how far elements are moved, in the size (root mean square) of those that differ or of the others
)
_FAR = 1e3  # in the size of all else: a softmax makes 0 of it
_MOST = 4  # culprits that are looked at one by one

_Read = tuple[Digest, int]
"""The finite numbers of a tensor, and how many others it has."""


class _Difference(NamedTuple):
    """The elements in which a pair differs, finite numbers to put there, and how large these and the others are.

    `far` are those that are far below all else on both sides, as what fills a mask before a softmax: they stay so.
    """

    where: Tensor
    values: Tensor
    size: float
    far: Tensor


def unread(bench: Bench, judged: Judged) -> frozenset[Pair]:
    """Pairs that differ only in what nothing behind them reads.

    Args:
        bench: The two models and their pairs, on a few samples in float64.
        judged: What they were found to be off by there, free and forced, and which are to blame.
    """
    together = _differences(bench, _possible(bench.alignment, judged.rows), force=False)
    found = {*together} if together and _is_quiet(bench, together) else set()
    # Where something else is at fault, what is behind a culprit differs anyhow.
    if len(judged.culprits) > 1:
        pairs = [_pair(bench.alignment, row) for row in judged.culprits[:_MOST]]
        alone = _differences(bench, [pair for pair in pairs if pair and pair not in found], force=True)
        found.update(pair for pair, difference in alone.items() if _is_quiet(bench, {pair: difference}))
    return frozenset(found)


def _possible(alignment: Alignment, rows: Sequence[PairResult]) -> list[Pair]:
    """Pairs that differ while all that reads them agrees, or is such a pair itself."""
    readers = readers_of(rows)
    found: dict[int, Pair] = {}
    for row in reversed(rows):
        pair = _pair(alignment, row)
        below = readers.get(row.index)
        if pair is None or not below or not differs(row) or pair.baseline in alignment.baseline.outputs:
            continue
        if all(not differs(each) or each.index in found for each in below):
            found[row.index] = pair
    return list(found.values())


def _pair(alignment: Alignment, row: PairResult) -> Pair | None:
    """The pair of a row whose tensors can be held against each other."""
    if row.kind != "site" or row.status is Status.UNMATCHED or row.misshapen or row.layout:
        return None
    b = alignment.baseline.by_name[row.baseline or ""].index
    return Pair(b, alignment.partner[b])


def _differences(
    bench: Bench, pairs: Collection[Pair], *, force: bool, whole: bool = False
) -> dict[Pair, _Difference]:
    """Where pairs differ as the models run, or by themselves if `force`; of another shape everywhere if `whole`."""
    if not pairs:
        return {}
    ordered = list(bench.alignment.pairs)
    found: dict[Pair, _Difference] = {}

    def visit(number: int, tensors: Sequence[Tensor]) -> None:
        baseline, candidate = tensors
        pair = ordered[number]
        if pair not in pairs or not candidate.is_floating_point():
            return
        if baseline.shape != candidate.shape:
            finite = candidate[candidate.isfinite()]
            if whole and len(finite) == candidate.numel():
                everywhere = torch.ones_like(candidate, dtype=torch.bool)
                found[pair] = _Difference(everywhere, candidate.clone(), _size(finite) or 1.0, ~everywhere)
            return
        values = torch.where(candidate.isfinite(), candidate, baseline).clone()
        finite = baseline.isfinite() & candidate.isfinite()
        size = _size(candidate[finite])
        where = ~finite & (baseline != candidate) | ((baseline - candidate).abs() > SAME * size) & finite
        if bool(values[where].isfinite().all()):
            sizes = [_size(each[finite & part]) for each in (baseline, candidate) for part in (where, ~where)]
            least = -_FAR * max(sizes[1] + sizes[3], 1.0)
            far = where & (baseline < least) & (candidate < least)
            found[pair] = _Difference(where, values, max(sizes) or 1.0, far & (far == where).all())

    run(
        [bench.lane("baseline"), bench.lane("candidate")],
        Plan(
            [bench.paired_sites("baseline"), bench.paired_sites("candidate")],
            [Comparing(0, 1, force=force)],
            layouts=bench.alignment.laid_out,
        ),
        visit=visit,
    )
    return found


def fills(bench: Bench, pairs: Collection[Pair]) -> frozenset[Pair]:
    """Those of some pairs that differ in what fills a mask: far below all else, so that a softmax makes 0 of it.

    All of them where the models do not run.
    """
    try:
        found = _differences(bench, pairs, force=False)
    except (GraphDepartureError, ModelError):
        return frozenset(pairs)
    return frozenset(pair for pair, difference in found.items() if bool(difference.far.any()))


def _size(tensor: Tensor) -> float:
    return float(tensor.double().square().mean().sqrt()) if tensor.numel() else 0.0


def heeded(bench: Bench, pairs: Collection[Pair]) -> list[Pair]:
    """Those of some pairs that differ where what the candidate returns depends on the elements that do."""
    found = []
    for pair, difference in _differences(bench, pairs, force=False, whole=True).items():
        before, *moved = (_seen(bench, {pair: difference}, sign, outputs=True) for sign in (0.0, 1.0, -1.0))
        if before is not None and any(after is not None and not _same(before, after) for after in moved):
            found.append(pair)
    return found


def _same(before: Sequence[_Read] | None, after: Sequence[_Read]) -> bool:
    return before is not None and all(
        a.fits(b) and infinite == more for (a, infinite), (b, more) in zip(before, after, strict=True)
    )


def _is_quiet(bench: Bench, differences: Mapping[Pair, _Difference]) -> bool:
    """Whether nothing moves behind the elements in which some pairs differ, whatever stands in them."""
    other = excited(bench)
    bench = bench if other is None else other.bench
    before = _seen(bench, differences, 0.0)
    return all(
        (after := _seen(bench, differences, sign)) is not None and _same(before, after)
        for sign in (1.0, -1.0)
    )


def _seen(
    bench: Bench, differences: Mapping[Pair, _Difference], sign: float, *, outputs: bool = False
) -> list[_Read] | None:
    """What the candidate gives at all other pairs and returns, with what differs moved in the direction of `sign`.

    Only what it returns if `outputs`. None where it goes another way or cannot be changed.
    """
    changed = {pair.candidate: difference for pair, difference in differences.items()}
    lane = bench.lane("candidate")
    found: list[_Read] = []
    try:
        while (site := lane.advance()) is not None:
            tensor = lane.tensor
            if tensor is None or tensor.is_complex():
                continue
            difference = changed.get(site)
            if difference is None:
                if not outputs:
                    found.append(_digest(tensor))
            elif tensor.shape != difference.values.shape:  # how much is found depends on what was moved
                return None
            else:
                noise = torch.rand(
                    tensor.shape, generator=torch.Generator().manual_seed(site), dtype=torch.float64
                )
                moved = sign * _LARGE * difference.size * (noise - 0.5).sign() * (1 + noise)
                near = difference.values * (1 + sign * noise.to(tensor) / 2)
                values = torch.where(difference.far, near, difference.values + moved.to(tensor))
                if not overwrite(tensor, torch.where(difference.where, values, tensor), lane):
                    return None
        found += [_digest(tensor) for tensor in lane.outputs if not tensor.is_complex()]
    except (GraphDepartureError, ModelError):
        return None
    finally:
        lane.close()
    return found


def _digest(tensor: Tensor) -> _Read:
    if not tensor.is_floating_point():
        return Digest.of(tensor), 0
    return Digest.of(torch.where(tensor.isfinite(), tensor, 0.0)), int((~tensor.isfinite()).sum())
