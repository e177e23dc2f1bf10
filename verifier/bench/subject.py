"""Two models that are compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from torch import Tensor, nn

    from verifier.align import Alignment, Assembly, State
    from verifier.weights import Masters

SIDES = ("baseline", "candidate")


@dataclass(frozen=True)
class Subject:
    """Two models that are compared: the modules, their pairs, and the tensors they compute with.

    `exact` holds, by side, what some of these are the roundings of: float64 uses that in their place. `multiples`
    are those of them that are the other model's, times a number for each row, by side and name. `rerouted` says that
    one takes another way with the tensors it is compared with than with those it was given.
    """

    baseline: nn.Module
    candidate: nn.Module
    alignment: Alignment
    masters: Masters
    exact: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    multiples: frozenset[tuple[str, str]] = frozenset()
    rerouted: bool = False

    def with_exact(
        self, found: Mapping[str, Mapping[str, Tensor]], multiples: Collection[tuple[str, str]] = ()
    ) -> Subject:
        """The same models, where more is known of what their tensors are the roundings of."""
        return replace(
            self,
            exact={side: {**self.exact.get(side, {}), **found.get(side, {})} for side in SIDES},
            multiples=self.multiples | {*multiples},
        )

    def with_assemblies(self, assemblies: Iterable[Mapping[str, Assembly]]) -> Subject:
        """The same models, with some of the candidate's tensors made otherwise from the baseline's."""
        return replace(self, masters=self.masters.remade(assemblies))

    @cached_property
    def states(self) -> tuple[State, ...]:
        """What either model writes while it runs; integers only count the steps."""
        return tuple(
            state
            for state in self.alignment.states(self.masters.whole)
            if self.masters.baseline[state.baseline].is_floating_point()
        )
