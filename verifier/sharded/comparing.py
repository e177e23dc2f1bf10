"""The whole model's tensors against what the pieces of all processes make up, one site after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import msgspec
import torch

from verifier.cells import ORACLE
from verifier.judge import numerics_budget, semantics_budget
from verifier.judge.budgets import SINGLE_ROUNDOFF
from verifier.lockstep import meet
from verifier.sharded.aligning import wide
from verifier.sharded.placing import Placement, by_shape, join, place
from verifier.sharded.slices import close, tolerance
from verifier.sharded.watching import MODULE, OUTPUT, STATE, Event, Key, Returned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.cells import Cell
    from verifier.judge import Policy
    from verifier.records import Budget, Comparison
    from verifier.sharded.aligning import Aligned
    from verifier.sharded.asking import Crew
    from verifier.sharded.settings import Otherwise
    from verifier.sharded.watching import Pass


@dataclass(frozen=True)
class Found:
    """One site: how its pieces were placed, whether by their numbers (`proved`), and how far they are from it."""

    event: Event
    placed: Placement | None
    proved: bool
    error: Comparison | None
    shape: tuple[int, ...]
    budget: Budget
    ranks: tuple[int, ...]
    declared: str = ""

    @property
    def key(self) -> Key:
        """The baseline's."""
        return self.event.key

    @property
    def wrong(self) -> bool:
        """Whether it is beyond what rounding explains, or, of an output, lies as nobody reads it."""
        if self.error is None or not self.error.within(self.budget.total):
            return True
        return self.key.returned and bool(self.oddness) and not self.declared

    @property
    def oddness(self) -> Literal["", "terms", "order"]:
        """How the pieces of a site that agrees are not what a process may take them for: terms, or out of order."""
        if self.placed is None or not self.proved:
            return ""
        return "terms" if not self.placed.reduced else "" if self.placed.usual else "order"

    @property
    def text(self) -> str:
        """How the pieces lie, for records."""
        if self.placed is None or not self.proved:
            return "unknown"
        text = self.placed.text
        return (
            text
            if len(self.ranks) != 1
            else f"on rank {self.ranks[0]}" + ("" if text == "replica" else f", {text}")
        )


@dataclass(frozen=True)
class Bench:
    """All that sites are compared with in one cell: the baseline's pass there and in the other precision."""

    crew: Crew
    cell: Cell
    policy: Policy
    baseline: Pass
    other: Pass
    aligned: Aligned
    otherwise: Mapping[str, Sequence[Otherwise]] = field(default_factory=dict)

    def budget(self, key: Key) -> Budget:
        """What a site may be off by, from how far the baseline is from itself in another precision there."""
        event = self.baseline.events[key]
        return self._budget(event.value, self.other.events[key].value if key in self.other.events else None)

    def _output_budget(self, position: int) -> Budget:
        others = self.other.outputs
        value = self.baseline.outputs[position]
        return self._budget(value, others[position] if position < len(others) else None)

    def _budget(self, value: Tensor, other: Tensor | None) -> Budget:
        noise = _noise(value, other)
        if self.cell == ORACLE:
            found = semantics_budget(self.policy, noise / SINGLE_ROUNDOFF)
        else:
            found = numerics_budget(self.policy, self.cell.dtype, self.cell.unit_roundoff, noise, noise)
        exact = not (value.is_floating_point() or value.is_complex())
        total = 0.0 if exact else found.total
        return replace_budget(found, total)

    def sites(self, known: Mapping[Key, Placement] | None = None) -> Iterator[Found]:
        """Every site that some rank has, in the baseline's order."""
        for key, event in self.baseline.events.items():
            parts = self.aligned.parts[key]
            if any(parts):
                yield self.site(event, (known or {}).get(key))
        for position in range(len(self.baseline.outputs)):
            found = self.output(position, known)
            if found is not None:
                yield found

    def site(self, event: Event, known: Placement | None = None) -> Found:
        """One of them."""
        key = event.key
        declared = self.aligned.shards.get(key, "")
        return self._found(event, self.pieces(key), self.budget(key), self.holders(key), known, declared)

    def output(self, position: int, known: Mapping[Key, Placement] | None = None) -> Found | None:
        """What the ranks returned there; None if none returned anything."""
        value, maker = self.baseline.outputs[position], self.baseline.makers[position]
        key = Key("", OUTPUT, position)
        answers = self._returned(position)
        ranks = tuple(rank for rank, each in enumerate(answers) if each.value is not None)
        if not ranks:
            return None
        event = Event(key, OUTPUT, OUTPUT, value, () if maker is None else (maker,))
        budget = self._output_budget(position)
        pieces = [wide(each.value) for each in answers if each.value is not None]
        declared = next((each.declared for each in answers if each.value is not None), "")
        return self._found(event, pieces, budget, ranks, (known or {}).get(key), declared)

    def _returned(self, position: int) -> list[Returned]:
        """What each rank returned, as far as it is to be the baseline's output."""
        return self._told_apart(position)[0]

    def strays(self, position: int) -> tuple[int, ...]:
        """The ranks that return there what has another shape and is nothing that the baseline computes."""
        return self._told_apart(position)[1]

    def _told_apart(self, position: int) -> tuple[list[Returned], tuple[int, ...]]:
        """What each rank returned, without what stages hand on to a rank that ends the model, and strays."""
        answers: list[Returned] = self.crew.ask("output", position)
        ending = self._makers(self.baseline.makers[position])
        if not any(each.value is not None and rank in ending for rank, each in enumerate(answers)):
            return answers, ()
        answers = [
            each if rank in ending or not self._handed_on(rank, each, ending) else Returned()
            for rank, each in enumerate(answers)
        ]
        whole = wide(self.baseline.outputs[position])
        odd = tuple(
            rank
            for rank, each in enumerate(answers)
            if rank not in ending and each.value is not None and wide(each.value).shape != whole.shape
        )
        limit = self._output_budget(position).total
        if not odd or place(whole, [wide(e.value) for e in answers if e.value is not None], limit):
            return answers, ()
        return [Returned() if rank in odd else each for rank, each in enumerate(answers)], odd

    def _handed_on(self, rank: int, returned: Returned, ending: Sequence[int]) -> bool:
        """Whether a rank returned what it computes alone, and no rank that ends the model computes too."""
        if returned.value is None:
            return False
        value = wide(returned.value)
        for key, parts in self.aligned.parts.items():
            if not parts[rank] or any(parts[each] for each in ending):
                continue
            if returned.maker in parts[rank]:
                return True
            made = wide(self.baseline.events[key].value)
            if made.numel() == value.numel() and made.numel():
                slack = tolerance(made, self.budget(key).total)
                if close(made.flatten(), value.flatten(), slack):
                    return True
        return False

    def pieces(self, key: Key) -> list[Tensor]:
        """What all ranks have at a key, in their order, each call after the other."""
        if key.returned:
            return [wide(each.value) for each in self._returned(key.call) if each.value is not None]
        return [wide(each) for rank in self.crew.ask("tensor", self._asked(key)) for each in rank]

    def given(self, key: Key) -> list[Tensor]:
        """What went into the modules that made it."""
        if key.returned:
            return []
        return [wide(e) for rank in self.crew.ask("given", self._asked(key)) for e in rank if e is not None]

    def holders(self, key: Key) -> tuple[int, ...]:
        """The ranks that have something at a key; of a module that others have only a part of, those that end it."""
        found = tuple(rank for rank, each in enumerate(self.aligned.parts[key]) if each)
        if self.baseline.events[key].op != MODULE:
            return found
        ending = set(self._makers(key))
        return tuple(rank for rank in found if rank in ending) or found

    def _asked(self, key: Key) -> list[list[Key]]:
        owners = self.holders(key)
        return [list(each) if rank in owners else [] for rank, each in enumerate(self.aligned.parts[key])]

    def _makers(self, key: Key | None) -> tuple[int, ...]:
        """The ranks that have the call that made a module's result, past all modules around it."""
        key = self.baseline.inmost(key)
        return () if key is None else tuple(r for r, each in enumerate(self.aligned.parts[key]) if each)

    def _found(
        self,
        event: Event,
        pieces: Sequence[Tensor],
        budget: Budget,
        ranks: tuple[int, ...],
        known: Placement | None,
        declared: str,
    ) -> Found:
        whole = wide(event.value)
        placed = known or place(whole, pieces, budget.total)
        if placed is not None and event.op == STATE and not placed.reduced:
            placed = None  # a buffer is read by each process for itself
        proved = placed is not None
        placed = placed or by_shape(whole, pieces)
        joined = None if placed is None else join(placed, whole, pieces)
        if joined is None:
            shape = next(tuple(p.shape) for p in pieces)
            return Found(event, None, False, None, shape, budget, ranks, declared)
        error = meet([whole], [joined])[0].error
        if placed is not None and placed.kind in ("sum", "mean"):
            # Terms that cancel are rounded as large as they are.
            size = max(float(torch.linalg.vector_norm(piece)) for piece in pieces)
            budget = replace_budget(budget, budget.total * max(1.0, size / (float(whole.norm()) or 1.0)))
        return Found(event, placed, proved, error, tuple(joined.shape), budget, ranks, declared)


def replace_budget(found: Budget, total: float) -> Budget:
    """A budget with one limit for both errors: what a step adds is not known apart from what comes in."""
    return msgspec.structs.replace(
        found, total=total, intrinsic=total, oracle_total=None, oracle_intrinsic=None
    )


def _noise(value: Tensor, other: Tensor | None) -> float:
    if other is None or other.shape != value.shape:
        return 0.0
    error = meet([wide(value)], [wide(other)])[0].error
    if error is None or error.nonfinite_mismatched or error.nrmse != error.nrmse:
        return 1.0
    return min(error.nrmse, 1.0) if error.elements and error.max_abs else 0.0


def refuted(sites: Sequence[Found]) -> set[Key]:
    """Calls that were paired by their names alone and differ, though the module around them gives the same."""
    right: dict[str, bool] = {}
    for each in sites:
        if not each.key.op and not each.key.returned:
            right[each.key.scope] = right.get(each.key.scope, True) and not each.wrong
    return {
        each.key
        for each in sites
        if each.key.op
        and each.event.op not in (OUTPUT, STATE)
        and each.wrong
        and right.get(each.key.scope, False)
    }


def without(sites: Sequence[Found], keys: set[Key]) -> list[Found]:
    """The sites but these."""
    return [each for each in sites if each.key not in keys]
