"""The comparison of initial values itself: bits where the draws come in the same order, else distributions."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import torch

from verifier.copying import state_of
from verifier.environment import describe, preserved
from verifier.errors import UsageError
from verifier.initialisation.declared import declarations
from verifier.initialisation.distributions import Constant
from verifier.initialisation.drawing import Side, correspondence
from verifier.initialisation.explaining import explanation
from verifier.initialisation.hypotheses import combined, holm, one_sample, sample, two_samples
from verifier.initialisation.records import Initialisation, Standing, TensorResult
from verifier.result import Verdict
from verifier.weights import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from verifier.align import Recipe
    from verifier.initialisation.declared import Declared
    from verifier.initialisation.distributions import Array
    from verifier.initialisation.records import Sample
    from verifier.inputs import Inputs

    State = Mapping[str, Tensor]

ERROR_RATE = 1e-3
ENOUGH = (
    2000  # values: a spread that is wrong by an eighth shows in them, after a correction for a thousand tests
)
FEWEST = 20  # values: below this only a gross difference could show
MOST_DRAWS = 16
MINIMUM_COVERAGE = 0.5


def verify_initialisation(
    baseline: str | Callable[[], nn.Module],
    candidate: str | Callable[[], nn.Module],
    *,
    seed: int = 0,
    draws: int | None = None,
    error_rate: float = ERROR_RATE,
    parameter_map: Mapping[str, object] | None = None,
    inputs: Inputs | None = None,
    command: str = "",
) -> Initialisation:
    """Do both models start from the same values, or at least from the same distributions?

    Both are built from the same seed. Tensors that belong together and hold the same bits are `identical`. Of the
    others it is asked whether they are draws from the same distribution: from the documented one of the baseline's
    initialisation (`verifier.initialisation.declared`) where the baseline's own values do not contradict it, else
    from the one the baseline's values are from. The baseline is then built from other seeds, so that the two are
    independent.

    Args:
        baseline: The trusted model: a specification, or a function without arguments that builds it.
        candidate: The model under test, likewise.
        seed: The first seed. Further draws use those that follow it.
        draws: How often to build each model where bits differ; None for as often as gives every tensor 2,000 values,
            at most 16 times.
        error_rate: The chance that, of two models whose tensors are all from the same distributions, any is called
            diverged.
        parameter_map: Which tensors belong together where that cannot be found; as for `verify`.
        inputs: What both models run on where their tensors have other names; None for random images.
        command: How the comparison was asked for, for the record.

    Raises:
        UsageError: A model, the map or a number is wrong.
        CannotRunError: A model must run to be aligned and does not.
    """
    started = time.perf_counter()
    if not 0 < error_rate < 1:
        raise UsageError(f"the error rate must lie between 0 and 1, not {error_rate:g}.")
    if draws is not None and not 1 <= draws <= 1000:
        raise UsageError(f"the number of draws must lie between 1 and 1000, not {draws}.")
    ours, theirs = Side.of("baseline", baseline), Side.of("candidate", candidate)
    with preserved(), torch.no_grad():
        first, other = ours.drawn(seed), theirs.drawn(seed)
        own, their = state_of(first), state_of(other)
        known = resolve(parameter_map or {}, _shapes(own), _shapes(their))
        recipes = correspondence(first, other, known, inputs, (ours.spec, theirs.spec))
        rows = [_at_once(name, tensor, recipes.get(name), own) for name, tensor in their.items()]
        open_rows = {row.candidate: recipes[row.candidate] for row in rows if _is_open(row) and row.candidate}
        count = 0
        if open_rows:
            counts = {name: max(1, their[name].numel()) for name in open_rows}
            count = draws or min(MOST_DRAWS, max(-(-ENOUGH // each) for each in counts.values()))
            found = _Open(ours, theirs, declarations(first), recipes, open_rows, own, their, seed, count)
            judged = found.judged(error_rate)
            rows = [judged.get(row.candidate or "", row) for row in rows]
    used = {name for recipe in recipes.values() for name in recipe.names}
    rows += [
        TensorResult(
            candidate=None,
            baseline=name,
            shape=tuple(tensor.shape),
            standing=Standing.UNMATCHED,
            reason="no tensor of the candidate belongs to it",
        )
        for name, tensor in own.items()
        if name not in used
    ]
    verdict, reason = _verdict(rows)
    return Initialisation(
        verdict=verdict,
        reason=reason,
        baseline=ours.spec,
        candidate=theirs.spec,
        seed=seed,
        draws=count,
        error_rate=error_rate,
        tensors=tuple(rows),
        notes=_notes(rows),
        environment=describe(),
        command=command,
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


_OPEN = "to be tested"


def _is_open(row: TensorResult) -> bool:
    return row.reason == _OPEN


def _at_once(name: str, tensor: Tensor, recipe: Recipe | None, own: State) -> TensorResult:
    """What can be said of one of the candidate's tensors from a single draw."""
    row = TensorResult(
        candidate=name,
        baseline=None if recipe is None else recipe.text,
        shape=tuple(tensor.shape),
        standing=Standing.UNMATCHED,
        reason="no tensor of the baseline belongs to it",
    )
    if recipe is None:
        return msgspec.structs.replace(row, measured=_measured([tensor]))
    if not recipe.fits(_shapes(own), tensor.shape):
        sizes = ", ".join(str(tuple(own[each].shape)) for each in recipe.names if each in own)
        reason = f"its shape is {tuple(tensor.shape)}, the baseline's {sizes}"
        return msgspec.structs.replace(row, standing=Standing.DIVERGED, reason=reason)
    twin = recipe.make(own, tensor.shape)
    if tensor.dtype == twin.dtype and _same_bits(tensor, twin):
        return msgspec.structs.replace(row, standing=Standing.IDENTICAL, reason="")
    if tensor.is_floating_point() and torch.equal(tensor, twin.to(tensor.device, tensor.dtype)):
        reason = f"the baseline's values, in {_word(tensor.dtype)} instead of {_word(twin.dtype)}"
        return msgspec.structs.replace(row, standing=Standing.SAME_DISTRIBUTION, reason=reason)
    return msgspec.structs.replace(row, standing=Standing.UNTOLD, reason=_OPEN)


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _same_bits(one: Tensor, other: Tensor) -> bool:
    one, other = one.cpu().contiguous(), other.cpu().contiguous()
    if one.dtype.is_complex or not one.numel():
        return torch.equal(one, other)
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _numbers(tensors: Sequence[Tensor]) -> Array:
    return np.concatenate([tensor.detach().cpu().to(torch.float64).reshape(-1).numpy() for tensor in tensors])


def _measured(tensors: Sequence[Tensor]) -> Sample | None:
    numbers = _numbers(tensors)
    return sample(numbers) if numbers.size and np.isfinite(numbers).all() else None


@dataclass
class _Open:
    """The tensors whose bits differ, to be drawn again and tested: their recipes, and those of all tensors."""

    ours: Side
    theirs: Side
    declared: Mapping[str, Declared]
    every: Mapping[str, Recipe]
    recipes: Mapping[str, Recipe]
    own: State
    their: State
    seed: int
    draws: int

    def judged(self, error_rate: float) -> dict[str, TensorResult]:
        """A row for each tensor."""
        seeds = max(self.draws, 2)  # from a second seed one sees whether the first made any difference
        candidates = {name: [self.their[name]] for name in self.recipes}
        baselines: dict[str, list[Tensor]] = {name: [] for name in self.recipes}
        fixed = self._draw(self.theirs, range(self.seed + 1, self.seed + seeds), candidates)
        others = range(self.seed + seeds, self.seed + seeds + self.draws)
        fixed_baselines = self._draw(self.ours, others, baselines)
        copies = _copies(self.their, self.every, self.own)
        rows = {}
        believed = self._believed(baselines, error_rate)
        for name in self.recipes:
            again = name in fixed, name in fixed_baselines
            rows[name] = self._row(
                name, candidates[name], baselines[name], again, believed, copies.get(name, "")
            )
        tested = [name for name, row in rows.items() if row.tests]
        corrected = holm([combined(rows[name].tests) for name in tested])
        for name, p_value in zip(tested, corrected, strict=True):
            rows[name] = self._tested(rows[name], p_value, error_rate, candidates[name])
        return rows

    def _draw(self, side: Side, seeds: range, drawn: dict[str, list[Tensor]]) -> set[str]:
        """Add a draw from each seed to the small tensors, one to all if they have none; tells which never change."""
        fixed: set[str] = set()
        for number, seed in enumerate(seeds):
            state = state_of(side.drawn(seed))
            for name, recipe in self.recipes.items():
                first = self.their[name]
                tensor = state[name] if side is self.theirs else recipe.make(state, first.shape)
                if not number and _same_bits(
                    tensor, first if side is self.theirs else recipe.make(self.own, first.shape)
                ):
                    fixed.add(name)
                many = sum(each.numel() for each in drawn[name])
                if not drawn[name] or (many < ENOUGH and len(drawn[name]) < self.draws):
                    drawn[name].append(tensor.clone())
        return fixed

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
                p_values[name] = combined(one_sample(values, said.distribution)) if values.size else 1.0
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
            shape=tuple(self.their[name].shape),
            standing=Standing.DIVERGED,
            declared=str(said) if said else "",
            source=said.source if said else "",
            contradicted=contradicted,
            expected=_measured(baselines),
            measured=_measured(candidates),
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
            return msgspec.structs.replace(row, standing=Standing.UNTOLD, reason=few)
        else:
            use = said is not None and not contradicted and not isinstance(said.distribution, Constant)
            tests = (
                one_sample(values, said.distribution)  # type: ignore[union-attr, arg-type]
                if use
                else two_samples(values, others)
            )
            return msgspec.structs.replace(row, tests=tests)
        return msgspec.structs.replace(row, reason=reason)

    def _tested(
        self, row: TensorResult, p_value: float, error_rate: float, candidates: list[Tensor]
    ) -> TensorResult:
        if p_value > error_rate:
            return msgspec.structs.replace(row, p_value=p_value, standing=Standing.SAME_DISTRIBUTION)
        decisive = min(row.tests, key=lambda test: test.p_value)
        drawn_from = (
            row.declared if row.declared and not row.contradicted else "what the baseline's is drawn from"
        )
        name = row.candidate or ""
        twin = self.recipes[name].make(self.own, self.their[name].shape)
        said = next((self.declared[each] for each in self.recipes[name].names if each in self.declared), None)
        return msgspec.structs.replace(
            row,
            p_value=p_value,
            reason=f"it is not drawn from {drawn_from} ({decisive.name} test, p = {p_value:.1e})",
            explanation=explanation(
                _numbers(candidates),
                said.shape if said else tuple(twin.shape),
                (self.their[name], twin),
            ),
        )


def _copies(their: State, recipes: Mapping[str, Recipe], own: State) -> dict[str, str]:
    """The tensors that hold the very numbers of an earlier one of the same model, though their partners do not."""
    seen: dict[bytes, str] = {}
    found: dict[str, str] = {}
    for name, tensor in their.items():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel() < 2 or bool((flat == flat[0]).all()):
            continue
        digest = hashlib.sha256(flat.view(torch.uint8).numpy().tobytes()).digest()
        earlier = seen.setdefault(digest, name)
        if earlier != name and name in recipes and earlier in recipes:
            ours = [recipes[each].make(own, their[each].shape) for each in (name, earlier)]
            if ours[0].shape != ours[1].shape or not torch.equal(*ours):
                found[name] = f"it holds the same numbers as {earlier}; the baseline draws both"
    return found


def _verdict(rows: Sequence[TensorResult]) -> tuple[Verdict, str]:
    told = [
        row
        for row in rows
        if row.standing in (Standing.IDENTICAL, Standing.SAME_DISTRIBUTION, Standing.DIVERGED)
    ]
    wrong = [row for row in rows if row.standing is Standing.DIVERGED]
    if wrong:
        return Verdict.DIVERGED, f"{wrong[0].candidate}: {wrong[0].reason}"
    if not rows:
        return Verdict.INCONCLUSIVE, "neither model has parameters or buffers"
    if len(told) < MINIMUM_COVERAGE * len(rows):
        return Verdict.INCONCLUSIVE, f"only {len(told)} of {len(rows)} tensors could be compared"
    return Verdict.MATCH, ""


def _notes(rows: Sequence[TensorResult]) -> tuple[str, ...]:
    notes = []
    apart = [row for row in rows if row.candidate and row.standing is not Standing.IDENTICAL and row.baseline]
    if apart and any(row.standing is Standing.IDENTICAL for row in rows):
        notes.append(f"the first tensor with other bits, in the candidate's order, is {apart[0].candidate}")
    wrong = [row for row in rows if row.contradicted]
    if wrong:
        notes.append(
            f"{len(wrong)} of the baseline's own tensors contradict what is documented of them, first "
            f"{wrong[0].baseline}; the candidate's were compared with the baseline's values instead"
        )
    return tuple(notes)
