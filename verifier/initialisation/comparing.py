"""The comparison of initial values itself: bits where the draws come in the same order, else distributions."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import torch

from verifier.border.programs import contained
from verifier.environment import describe, preserved
from verifier.errors import UsageError
from verifier.initialisation.declared import declarations
from verifier.initialisation.rebuilding import Builder, correspondence
from verifier.initialisation.records import Initialisation, TensorResult, TensorStanding
from verifier.initialisation.testing import ENOUGH, OpenTensors, measured, same_bits
from verifier.models.copying import state_of
from verifier.records import Verdict
from verifier.weights import resolve
from verifier.weights.files import counts_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from verifier.align import Assembly
    from verifier.inputs import Inputs

    State = Mapping[str, Tensor]

ERROR_RATE = 1e-3
MOST_DRAWS = 16
MINIMUM_COVERAGE = 0.5


@contained()
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
    b, c = Builder.of("baseline", baseline), Builder.of("candidate", candidate)
    with preserved(), torch.no_grad():
        b_model, c_model = b.drawn(seed), c.drawn(seed)
        b_state, c_state = state_of(b_model), state_of(c_model)
        known = resolve(parameter_map or {}, _shapes(b_state), _shapes(c_state))
        recipes = correspondence(b_model, c_model, known, inputs, (b.spec, c.spec))
        rows = [
            _at_once(name, tensor, recipes.get(name), b_state)
            for name, tensor in c_state.items()
            if name in recipes or not counts_batches(name)
        ]
        open_rows = {
            row.candidate: recipes[row.candidate]
            for row in rows
            if row.standing is TensorStanding.UNTOLD and row.candidate
        }
        count = 0
        if open_rows:
            counts = {name: max(1, c_state[name].numel()) for name in open_rows}
            count = draws or min(MOST_DRAWS, max(-(-ENOUGH // each) for each in counts.values()))
            found = OpenTensors(
                b, c, declarations(b_model), recipes, open_rows, b_state, c_state, seed, count
            )
            judged = found.judged(error_rate)
            rows = [judged.get(row.candidate or "", row) for row in rows]
    used = {name for recipe in recipes.values() for name in recipe.names}
    rows += [
        TensorResult(
            candidate=None,
            baseline=name,
            shape=tuple(tensor.shape),
            standing=TensorStanding.UNMATCHED,
            reason="no tensor of the candidate belongs to it",
        )
        for name, tensor in b_state.items()
        if name not in used and not counts_batches(name)
    ]
    verdict, reason = _verdict(rows)
    return Initialisation(
        verdict=verdict,
        reason=reason,
        baseline=b.spec,
        candidate=c.spec,
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


def _at_once(name: str, tensor: Tensor, recipe: Assembly | None, baseline: State) -> TensorResult:
    """What can be said of one of the candidate's tensors from a single draw; untold where more are needed."""
    row = TensorResult(
        candidate=name,
        baseline=None if recipe is None else recipe.text,
        shape=tuple(tensor.shape),
        standing=TensorStanding.UNMATCHED,
        reason="no tensor of the baseline belongs to it",
    )
    if recipe is None:
        return msgspec.structs.replace(row, measured=measured([tensor]))
    if not recipe.fits(_shapes(baseline), tensor.shape):
        sizes = ", ".join(str(tuple(baseline[each].shape)) for each in recipe.names if each in baseline)
        reason = f"its shape is {tuple(tensor.shape)}, the baseline's {sizes}"
        return msgspec.structs.replace(row, standing=TensorStanding.DIVERGED, reason=reason)
    twin = recipe.make(baseline, tensor.shape)
    if tensor.dtype == twin.dtype and same_bits(tensor, twin):
        return msgspec.structs.replace(row, standing=TensorStanding.IDENTICAL, reason="")
    if tensor.is_floating_point() and torch.equal(tensor, twin.to(tensor.device, tensor.dtype)):
        reason = f"the baseline's values, in {_word(tensor.dtype)} instead of {_word(twin.dtype)}"
        return msgspec.structs.replace(row, standing=TensorStanding.SAME_DISTRIBUTION, reason=reason)
    return msgspec.structs.replace(row, standing=TensorStanding.UNTOLD, reason="")


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _verdict(rows: Sequence[TensorResult]) -> tuple[Verdict, str]:
    told = [
        row
        for row in rows
        if row.standing
        in (TensorStanding.IDENTICAL, TensorStanding.SAME_DISTRIBUTION, TensorStanding.DIVERGED)
    ]
    wrong = [row for row in rows if row.standing is TensorStanding.DIVERGED]
    if wrong:
        return Verdict.DIVERGED, f"{wrong[0].candidate}: {wrong[0].reason}"
    if not rows:
        return Verdict.INCONCLUSIVE, "neither model has parameters or buffers"
    if len(told) < MINIMUM_COVERAGE * len(rows):
        return Verdict.INCONCLUSIVE, f"only {len(told)} of {len(rows)} tensors could be compared"
    return Verdict.MATCH, ""


def _notes(rows: Sequence[TensorResult]) -> tuple[str, ...]:
    notes = []
    apart = [
        row for row in rows if row.candidate and row.standing is not TensorStanding.IDENTICAL and row.baseline
    ]
    if apart and any(row.standing is TensorStanding.IDENTICAL for row in rows):
        notes.append(f"the first tensor with other bits, in the candidate's order, is {apart[0].candidate}")
    wrong = [row for row in rows if row.contradicted]
    if wrong:
        notes.append(
            f"{len(wrong)} of the baseline's own tensors contradict what is documented of them, first "
            f"{wrong[0].baseline}; the candidate's were compared with the baseline's values instead"
        )
    return tuple(notes)
