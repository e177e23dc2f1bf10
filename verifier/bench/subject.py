"""Two models that are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

    from verifier.align import Alignment, Assembly, State
    from verifier.weights import Masters

SIDES = ("baseline", "candidate")


@dataclass(frozen=True)
class Subject:
    """Two models that are compared: the modules, their pairs, and the tensors they compute with."""

    baseline: nn.Module
    candidate: nn.Module
    alignment: Alignment
    masters: Masters

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
