"""What is said of a comparison beside its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verifier.preprocessing.entries import UNDECIDED, WRONG
from verifier.preprocessing.passages import remaining

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.preprocessing.candidates import Made
    from verifier.preprocessing.entries import Entry
    from verifier.preprocessing.recipes import PhotographRecipe


@dataclass
class Said:
    """What was noticed so far: names that are no stages', orders of stages, and more."""

    unknown: dict[str, None] = field(default_factory=dict)
    orders: set[tuple[str, ...]] = field(default_factory=set)
    final: str = ""
    drawn: dict[str, str] = field(default_factory=dict)
    otherwise: int = 0

    def add(self, made: Made) -> None:
        """One more photograph."""
        self.unknown |= dict.fromkeys(made.unknown)
        self.orders.add(tuple(made.stages))

    def not_vouched(self, recipe: PhotographRecipe, made: Made) -> None:
        """The final tensor differs, and no stage that was seen made it."""
        latest, stages = remaining(recipe, made)
        if made.stages and not self.final:
            hidden = ", ".join(stage.name for stage in stages)
            what = f", of which {hidden} {'was' if len(stages) == 1 else 'were'} not shown" if hidden else ""
            self.final = f"the final tensor differs by what is done after {latest}{what}"

    def notes(self, stages: Mapping[str, Entry], undecided: bool) -> tuple[str, ...]:
        """All of it, in sentences."""
        found = [self.final] if self.final else []
        if self.unknown:
            found.append(f"the candidate names stages the recipe has not: {', '.join(self.unknown)}")
        odd = [order for order in self.orders if list(order) != [name for name in stages if name in order]]
        if odd:
            found.append(f"the candidate's order of stages is {', '.join(odd[0])}")
        if self.otherwise:
            found.append(
                f"in that order it makes of {self.otherwise} test pictures what the recipe never makes"
            )
        hidden = [name for name, each in stages.items() if each.stage.draw and each.total is None]
        if undecided and hidden:
            found.append(
                f"what was drawn for {', '.join(hidden)} cannot be told from the final tensor alone: "
                "name a list of transforms, or return a dict of what there is after each stage"
            )
        for name, each in stages.items():
            if undecided and name in hidden:
                continue
            if each.status == UNDECIDED and self.drawn.get(name):
                found.append(f"{name}: {self.drawn[name]}")
            elif each.drawn_alike is False and each.status in WRONG:
                found.append(f"{name}: the same seed draws other parameters")
            elif each.drawn_alike is False:
                more = f"; {self.drawn[name]}" if self.drawn.get(name) else ""
                found.append(
                    f"{name}: the same seed draws other parameters; it was compared with the same ones{more}"
                )
        return tuple(found)
