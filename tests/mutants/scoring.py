"""What the verifier said of one mutant or benign variant, against what is true."""

from __future__ import annotations

import copy
import random
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from tests.mutants.benign import BENIGN, Variant, applies, variant
from tests.mutants.drawing import SEEDS, Mutant, draw
from tests.mutants.networks import BUILDERS, build, images
from verifier import Verdict, verify

if TYPE_CHECKING:
    from torch import Tensor, nn

    from verifier.records import PairResult
    from verifier.storage.saving import Verification

EXTRA_BENIGN = [0, 0, 1, 2]  # how many variants are combined with the first


@dataclass(frozen=True)
class Score:
    """One mutant's marks. `first`, `localised` and `diagnosed` imply `detected`.

    Attributes:
        index: Its number in the draw.
        network: The baseline.
        kinds: Kinds of the planted faults.
        sites: Where each was planted.
        effect: See `Effect`; only visible ones count.
        shadowed: One of them reads a tensor whose shape another one changed.
        detected: The verdict is `diverged`.
        first: The first divergence is the first wrong site in execution order.
        localised: All wrong sites are blamed and nothing else is.
        diagnosed: Each is blamed for a right cause, and the cause is confirmed.
        untouched: Both models' tensors are afterwards what they were.
        said: What the verifier said.
        seconds: How long it took.
    """

    index: int
    network: str
    kinds: tuple[str, ...]
    sites: tuple[str, ...]
    effect: str
    shadowed: bool
    detected: bool
    first: bool
    localised: bool
    diagnosed: bool
    untouched: bool
    said: str
    seconds: float

    def __str__(self) -> str:
        planted = ", ".join(f"{kind} at {site}" for kind, site in zip(self.kinds, self.sites, strict=True))
        shadowed = " (behind another shape)" if self.shadowed else ""
        return f"mutant {self.index}, {self.network}: {planted}{shadowed}: {self.said}"


@dataclass(frozen=True)
class BenignScore:
    """A benign variant's marks: a false alarm if the verdict is `diverged`, `silent` if it is `match`."""

    index: int
    network: str
    names: tuple[str, ...]
    verdict: str
    said: str
    seconds: float

    def __str__(self) -> str:
        return f"benign {self.index}, {self.network}: {', '.join(self.names)}: {self.said}"


def score_mutant(seed: int, index: int) -> dict[str, Any]:
    """Draw the mutant with this number and score it. The record is plain, so that it travels."""
    return asdict(score(draw(random.Random(f"{seed}/mutant/{index}")), index))


def score(mutant: Mutant, index: int = 0) -> Score:
    """Verify a mutant against its baseline."""
    started = time.perf_counter()
    baseline = copy.deepcopy(mutant.baseline)  # the cached one is safe, whatever happens
    before = [_state(baseline), _state(mutant.candidate)]
    try:
        found = verify(baseline, mutant.candidate, mutant.inputs, weights="as-is")
    except Exception as error:  # a crash is a miss, and the others are still to be scored
        marks, said = (False, False, False, False), f"{type(error).__name__}: {error}"
    else:
        marks, said = _marks(mutant, found), _said(found)
    return Score(
        index,
        mutant.network,
        tuple(step.kind for step in mutant.steps),
        tuple(step.place.name for step in mutant.steps),
        str(mutant.effect),
        mutant.shadowed,
        *marks,
        all(map(_same_state, before, (baseline, mutant.candidate))),
        said,
        time.perf_counter() - started,
    )


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _same_state(before: dict[str, Tensor], model: nn.Module) -> bool:
    after = model.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def _marks(mutant: Mutant, found: Verification) -> tuple[bool, bool, bool, bool]:
    culprits = mutant.culprits
    if found.verdict is not Verdict.DIVERGED:
        return False, False, False, False
    first = found.first_divergence is not None and names(found.first_divergence, mutant.first)
    rows = {wrong: [row for row in found.culprits if names(row, wrong)] for wrong in culprits}
    localised = all(rows.values()) and all(
        any(names(row, wrong) for wrong in culprits) for row in found.culprits
    )
    diagnosed = all(rows.values()) and all(
        row.cause is not None and row.cause.confirmed and row.cause.code in mutant.causes(wrong)
        for wrong, blamed in rows.items()
        for row in blamed
    )
    return True, first, localised, diagnosed


def names(row: PairResult, wrong: frozenset[str]) -> bool:
    """Whether a row is about one of these modules or about an operator inside it."""
    return any(
        site is not None and (site == name or site.startswith(f"{name}."))
        for site in (row.baseline, row.candidate)
        for name in wrong
    )


def _said(found: Verification) -> str:
    if found.verdict is not Verdict.DIVERGED:
        return f"{found.verdict} {found.reason}".strip()
    first = found.first_divergence
    blamed = ", ".join(_row(row) for row in found.culprits) or "nothing"
    return f"first {_row(first) if first else 'nothing'}; blamed {blamed}"


def _row(row: PairResult) -> str:
    site = row.baseline if row.baseline == row.candidate else f"{row.baseline}/{row.candidate}"
    if row.cause is None:
        return f"{site}"
    return f"{site} [{row.cause.code}{'' if row.cause.confirmed else '?'}]"


def score_benign(seed: int, index: int) -> dict[str, Any]:
    """Draw the benign variant with this number and score it. The record is plain, so that it travels."""
    rng = random.Random(f"{seed}/benign/{index}")
    network = rng.choice(sorted(BUILDERS))
    parameters = rng.randrange(SEEDS)
    baseline = build(network, parameters)
    known = [name for name in sorted(BENIGN) if applies(name, baseline)]
    chosen = rng.sample(known, 1 + rng.choice(EXTRA_BENIGN))
    made = variant(baseline, images(network, 2, 1000 * parameters + 1), chosen, rng)
    return asdict(score_variant(network, baseline, made, tuple(chosen), index))


def score_variant(
    network: str, baseline: nn.Module, made: Variant, chosen: tuple[str, ...], index: int = 0
) -> BenignScore:
    """Verify a benign variant against its baseline."""
    started = time.perf_counter()
    try:
        with made.around():
            options = {"weights": "as-is", **made.options}
            found = verify(copy.deepcopy(baseline), made.candidate, made.inputs, **options)
    except Exception as error:  # as above
        verdict, said = "error", f"{type(error).__name__}: {error}"
    else:
        verdict, said = str(found.verdict), _said(found)
    return BenignScore(index, network, chosen, verdict, said, time.perf_counter() - started)
