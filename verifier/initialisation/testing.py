"""Tensors whose bits differ: drawing them again from other seeds, and testing what they are drawn from.

The error rate is kept by one argument. A tensor is named for its distribution only if one certain test of its values
against the baseline's says that the two are not drawn alike, and such a test gives a p-value of p or less with
probability p, whatever both are drawn from. Of m tensors, all drawn as the baseline's are, any is named only if the
smallest p-value is at most rate / m (Holm), which has the probability m * rate / m = rate at most.

All else can only take alarms away. That test is made where a first one, with fewer of the baseline's values, has a
p-value of at most `SCREENED`. Where what is documented of the baseline is believed, the first test is the one against
the documented distribution, and the p-value is the larger of the two. That one alone would not do: a distribution
that both models share but nobody documented, a little wider than the documented one, may be missed in the baseline's
values and found in the candidate's by chance, if it is found half of the time in one of four comparisons.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from verifier.initialisation.distributions import Constant
from verifier.initialisation.explaining import explanation
from verifier.initialisation.hypotheses import (
    DECLARED,
    combined,
    holm,
    jointly,
    one_sample,
    sample,
    two_samples,
    unit_of,
)
from verifier.initialisation.records import TensorResult, TensorStanding
from verifier.models.copying import state_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.align import Assembly
    from verifier.initialisation.declared import Declared
    from verifier.initialisation.distributions import Array
    from verifier.initialisation.rebuilding import Builder
    from verifier.initialisation.records import Statistics

    State = Mapping[str, Tensor]

ENOUGH = (
    2000  # values: a spread that is wrong by an eighth shows in them, after a correction for a thousand tests
)
FEWEST = 20  # values: below this only a gross difference could show
# So many values of the baseline for each of the candidate's are drawn where something seems wrong: the variance of a
# difference is then 1 + 1 / 4 times that of the candidate's part, where equally many values make it twice as large.
MORE = 4
SCREENED = 0.01  # the p-value, not corrected, below which something seems wrong


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one dtype hold the same bits, in the same order."""
    one, other = one.cpu().contiguous(), other.cpu().contiguous()
    if one.dtype.is_complex or not one.numel():
        return torch.equal(one, other)
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _numbers(tensors: Sequence[Tensor]) -> Array:
    return np.concatenate([tensor.detach().cpu().to(torch.float64).reshape(-1).numpy() for tensor in tensors])


def measured(tensors: Sequence[Tensor]) -> Statistics | None:
    """What all values of some tensors are together; None where there are none, or not only finite ones."""
    values = _numbers(tensors)
    return sample(values) if values.size and np.isfinite(values).all() else None


def _in_one_dtype(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Array, Array]:
    """The values of both, in the coarser of the two dtypes: rounding is no other distribution."""
    coarser = max((tensors[0].dtype, others[0].dtype), key=unit_of)
    if not unit_of(coarser):
        return _numbers(tensors), _numbers(others)
    return _numbers([each.to(coarser) for each in tensors]), _numbers([each.to(coarser) for each in others])


@dataclass
class OpenTensors:
    """The tensors whose bits differ, to be drawn again and tested: their recipes, and those of all tensors."""

    baseline: Builder
    candidate: Builder
    declared: Mapping[str, Declared]
    every: Mapping[str, Assembly]
    recipes: Mapping[str, Assembly]
    baseline_state: State
    candidate_state: State
    seed: int
    draws: int

    def judged(self, error_rate: float) -> dict[str, TensorResult]:
        """A row for each tensor."""
        seeds = max(self.draws, 2)  # from a second seed one sees whether the first made any difference
        candidates = {name: [self.candidate_state[name]] for name in self.recipes}
        baselines: dict[str, list[Tensor]] = {name: [] for name in self.recipes}
        fixed = self._draw(self.candidate, range(self.seed + 1, self.seed + seeds), candidates)
        others = range(self.seed + seeds, self.seed + seeds + self.draws)
        fixed_baselines = self._draw(self.baseline, others, baselines)
        copies = _copies(self.candidate_state, self.every, self.baseline_state)
        rows = {}
        believed = self._believed(baselines, error_rate)
        for name in self.recipes:
            again = name in fixed, name in fixed_baselines
            rows[name] = self._row(
                name, candidates[name], baselines[name], again, believed, copies.get(name, "")
            )
        tested = [name for name, row in rows.items() if row.tests]
        # A p-value above the rate stays there when it is corrected: those tensors need no second test.
        suspects = [name for name in tested if combined(rows[name].tests) <= max(SCREENED, error_rate)]
        self._draw_more(suspects, candidates, baselines, others.stop)
        for name in suspects:
            documented = (test for test in rows[name].tests if test.against == DECLARED)
            against = two_samples(*_in_one_dtype(candidates[name], baselines[name]))
            rows[name] = msgspec.structs.replace(
                rows[name], tests=(*documented, *against), expected=measured(baselines[name])
            )
        corrected = holm([jointly(rows[name].tests) for name in tested])
        for name, p_value in zip(tested, corrected, strict=True):
            rows[name] = self._tested(rows[name], p_value, error_rate, candidates[name], len(tested))
        return rows

    def _draw(self, side: Builder, seeds: range, drawn: dict[str, list[Tensor]]) -> set[str]:
        """Add a draw from each seed to the small tensors, one to all if they have none; tells which never change."""
        fixed: set[str] = set()
        for number, seed in enumerate(seeds):
            state = state_of(side.drawn(seed))
            for name, recipe in self.recipes.items():
                first = self.candidate_state[name]
                tensor = state[name] if side is self.candidate else recipe.make(state, first.shape)
                if not number and same_bits(
                    tensor, first if side is self.candidate else recipe.make(self.baseline_state, first.shape)
                ):
                    fixed.add(name)
                many = sum(each.numel() for each in drawn[name])
                if not drawn[name] or (many < ENOUGH and len(drawn[name]) < self.draws):
                    drawn[name].append(tensor.clone())
        return fixed

    def _draw_more(
        self,
        names: Sequence[str],
        candidates: Mapping[str, Sequence[Tensor]],
        baselines: Mapping[str, list[Tensor]],
        seed: int,
    ) -> None:
        """Add draws of the baseline to some tensors, from `seed` on, until they have `MORE` times the candidate's."""
        missing = {
            name: MORE * len(candidates[name]) - len(baselines[name])
            for name in names
            if sum(each.numel() for each in baselines[name]) < MORE * ENOUGH
        }
        for number in range(max(missing.values(), default=0)):
            state = state_of(self.baseline.drawn(seed + number))
            for name, wanted in missing.items():
                if number < wanted:
                    made = self.recipes[name].make(state, self.candidate_state[name].shape)
                    baselines[name].append(made.clone())

    def _believed(
        self, baselines: Mapping[str, list[Tensor]], error_rate: float
    ) -> dict[str, tuple[Declared, str]]:
        """What is declared of each tensor, and what in the baseline's own values contradicts it, if anything."""
        found: dict[str, tuple[Declared, str]] = {}
        p_values: dict[str, float] = {}
        for name, recipe in self.recipes.items():
            known = [self.declared.get(each) for each in recipe.names]
            said = known[0]
            if said is None or any(each is None or each.distribution != said.distribution for each in known):
                continue
            values = _numbers(baselines[name])
            found[name] = said, ""
            if isinstance(said.distribution, Constant):
                p_values[name] = float(bool((values == said.distribution.value).all()))
            else:
                p_values[name] = (
                    combined(one_sample(values, said.distribution, unit_of(baselines[name][0].dtype)))
                    if values.size
                    else 1.0
                )
        for name, p_value in zip(p_values, holm(list(p_values.values())), strict=True):
            if p_value <= error_rate:
                found[name] = found[name][0], f"the baseline's own values are not: p = {p_value:.1e}"
        return found

    def _row(
        self,
        name: str,
        candidates: list[Tensor],
        baselines: list[Tensor],
        again: tuple[bool, bool],
        believed: Mapping[str, tuple[Declared, str]],
        copied: str,
    ) -> TensorResult:
        said, contradicted = believed.get(name, (None, ""))
        row = TensorResult(
            candidate=name,
            baseline=self.recipes[name].text,
            shape=tuple(self.candidate_state[name].shape),
            standing=TensorStanding.DIVERGED,
            declared=str(said) if said else "",
            source=said.source if said else "",
            contradicted=contradicted,
            expected=measured(baselines),
            measured=measured(candidates),
        )
        values, others = _numbers(candidates), _numbers(baselines)
        if not np.isfinite(values).all():
            return msgspec.structs.replace(row, reason="it holds NaN or infinite values")
        fixed, other_fixed = again
        constant, other_constant = (bool((each == each[:1]).all()) for each in (values, others))
        if copied:
            reason = copied
        elif constant and other_constant:
            reason = f"it is {values[0]:g} everywhere, the baseline's {others[0]:g}"
        elif constant or other_constant:
            reason = (
                f"it is {values[0]:g} everywhere, the baseline's is drawn"
                if constant
                else f"it is not {others[0]:g} everywhere, as the baseline's is"
            )
        elif fixed and other_fixed:
            reason = "neither depends on the seed, and they differ"
        elif fixed or other_fixed:
            reason = (
                "it does not depend on the seed"
                if fixed
                else "it depends on the seed, the baseline's does not"
            )
        elif values.size < FEWEST:
            few = f"{values.size} values in {len(candidates)} draws are too few to tell"
            return msgspec.structs.replace(row, standing=TensorStanding.UNTOLD, reason=few)
        else:
            use = said is not None and not contradicted and not isinstance(said.distribution, Constant)
            tests = (
                one_sample(values, said.distribution, unit_of(candidates[0].dtype))  # type: ignore[union-attr, arg-type]
                if use
                else two_samples(*_in_one_dtype(candidates, baselines))
            )
            return msgspec.structs.replace(row, tests=tests)
        return msgspec.structs.replace(row, reason=reason)

    def _tested(
        self, row: TensorResult, p_value: float, error_rate: float, candidates: list[Tensor], tested: int
    ) -> TensorResult:
        """`row` with its standing, by a corrected p-value; `tested` is the number of rows it was corrected for."""
        believed = bool(row.declared) and not row.contradicted
        if p_value > error_rate:
            documented = [test for test in row.tests if test.against == DECLARED]
            reason = ""
            if documented and combined(documented) <= error_rate / tested:
                reason = f"nothing tells it from what the baseline's is, though it is hardly {row.declared}"
            return msgspec.structs.replace(
                row, p_value=p_value, standing=TensorStanding.SAME_DISTRIBUTION, reason=reason
            )
        decisive = min(row.tests, key=lambda test: test.p_value)
        drawn_from = (
            f"neither drawn from {row.declared} nor as the baseline's is"
            if believed
            else "not drawn from what the baseline's is drawn from"
        )
        name = row.candidate or ""
        twin = self.recipes[name].make(self.baseline_state, self.candidate_state[name].shape)
        said = next((self.declared[each] for each in self.recipes[name].names if each in self.declared), None)
        return msgspec.structs.replace(
            row,
            p_value=p_value,
            reason=f"it is {drawn_from} ({decisive.name} test, p = {p_value:.1e})",
            explanation=explanation(
                _numbers(candidates),
                said.shape if said else tuple(twin.shape),
                (self.candidate_state[name], twin),
            ),
        )


def _copies(candidate: State, recipes: Mapping[str, Assembly], baseline: State) -> dict[str, str]:
    """The tensors that hold the very numbers of an earlier one of the same model, though their partners do not."""
    seen: dict[bytes, str] = {}
    found: dict[str, str] = {}
    for name, tensor in candidate.items():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel() < 2 or bool((flat == flat[0]).all()):
            continue
        digest = hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).digest()
        earlier = seen.setdefault(digest, name)
        if earlier != name and name in recipes and earlier in recipes:
            made = [recipes[each].make(baseline, candidate[each].shape) for each in (name, earlier)]
            if made[0].shape != made[1].shape or not torch.equal(*made):
                found[name] = f"it holds the same numbers as {earlier}; the baseline draws both"
    return found
