"""A quantised form run with some of its layers in float: what each layer costs, told by leaving it out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from verifier.border.error_texts import account
from verifier.border.programs import translating
from verifier.errors import ModelError
from verifier.graph.chance import same_chance
from verifier.metrics import Moments, collect, compare, measure
from verifier.quantised.outputs import between, changed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from torch import Tensor

    from verifier.forms.quantisers import Quantised, Run, Shown
    from verifier.records import Comparison

Given = tuple["Sequence[Any]", "Mapping[str, Any]"]


class Effect(NamedTuple):
    """What a layer's rounding does.

    Attributes:
        alone: To its own result, where nothing else is rounded.
        total: To its result, where everything is.
        output: The mean square of the outputs' error with this layer in float, in that with none; of whole numbers
            how many change.
    """

    alone: Comparison
    total: Comparison
    output: float


class Off(NamedTuple):
    """How far outputs are off others.

    Attributes:
        numbers: The relative error (NRMSE) of what is no whole number.
        changed: The share of whole numbers that are others.
    """

    numbers: float
    changed: float

    @classmethod
    def of(cls, one: Sequence[Sequence[Tensor]], other: Sequence[Sequence[Tensor]]) -> Off:
        """That of `other` from `one`, both batch for batch."""
        found = between(one, other)
        return cls(0.0 if found is None else found.nrmse, changed(one, other) or 0.0)

    @property
    def error(self) -> float:
        """The larger of the two; NaN where one is."""
        return self.numbers if math.isnan(self.numbers) else max(self)

    @property
    def power(self) -> float:
        """What adds up: the mean square of an error, or how many numbers change."""
        return self.changed if self.changed > self.numbers else self.numbers**2


class Trials:
    """Runs of a quantised form with some layers in float, held against the form with nothing rounded.

    What it returns is that of the form as it is shipped: kernels of whole numbers round otherwise than the operators
    one by one, by as much as many a layer costs.

    Args:
        quantised: The form.
        weights: Its weights in float, by name.
        given: What it is run on, in batches.
        samples: How many samples each of these holds.
    """

    def __init__(
        self,
        quantised: Quantised,
        weights: Mapping[str, Tensor],
        given: Sequence[Given],
        samples: Sequence[int],
    ) -> None:
        self.quantised, self.weights, self.given, self.samples = quantised, weights, given, samples
        self.names = [layer.name for layer in quantised.layers]
        self.runs = 0
        self._errors: dict[frozenset[str], Off] = {}
        shown = [layer.result for layer in quantised.layers]
        inside = [each.name for each in quantised.roundings if each.inside]
        self._float = self.run(self.names, [*dict.fromkeys([*shown, *inside])])
        self._last: tuple[int, Shown] | None = None
        self.reference = [self.floats(k).outputs for k in range(len(given))]

    def run(self, kept: Collection[str], show: Sequence[str] = (), *, shipped: bool = False) -> Run:
        """The form with some layers in float."""
        self.runs += 1
        with translating(_failed):
            run = self.quantised.keeping(kept, self.weights, show, shipped=shipped)

        def running(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Shown:
            with translating(_failed), torch.no_grad(), same_chance():
                return run(args, kwargs)

        return running

    def floats(self, batch: int) -> Shown:
        """What is in the form with nothing rounded, on a batch."""
        if self._last is None or self._last[0] != batch:
            self._last = batch, self._float(*self.given[batch])
        return self._last[1]

    def outputs(self, kept: Collection[str], *, shipped: bool = True) -> list[tuple[Tensor, ...]]:
        """What it returns for each batch with some layers in float, as it is shipped or operator by operator."""
        run = self.run(kept, shipped=shipped)
        return [run(*given).outputs for given in self.given]

    def off(self, kept: Collection[str]) -> Off:
        """How far the outputs with some layers in float are off those with all of them."""
        key = frozenset(kept)
        if key not in self._errors:
            self._errors[key] = Off.of(self.reference, self.outputs(kept))
        return self._errors[key]

    def effects(self) -> Iterator[tuple[str, Effect]]:
        """What each layer does, by name."""
        total = self._inside([])
        whole = self.off([]).power
        for layer in self.quantised.layers:
            alone = self._inside([name for name in self.names if name != layer.name], [layer.result])
            left = self.off([layer.name]).power / whole if whole else 1.0
            yield layer.name, Effect(alone[layer.result], total[layer.result], left)

    def _inside(self, kept: Collection[str], show: Sequence[str] | None = None) -> dict[str, Comparison]:
        """Results of layers with some layers in float against those with all of them."""
        names = [layer.result for layer in self.quantised.layers] if show is None else [*show]
        run = self.run(kept, names)
        merged: dict[str, Moments] = {}
        for batch, given in enumerate(self.given):
            values, right = run(*given).values, self.floats(batch).values
            for name, found in zip(
                names, collect([measure(right[name], values[name]) for name in names]), strict=True
            ):
                merged[name] = found if name not in merged else merged[name].merge(found)
        return {name: compare(found) for name, found in merged.items()}


def _failed(error: BaseException) -> ModelError:
    return ModelError(f"the quantised candidate fails: {account(error)}")
