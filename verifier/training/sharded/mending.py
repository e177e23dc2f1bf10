"""Gradients that are wrong, put right one after the other: what is right then only followed, and is no fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from verifier.sharded.placing import cut
from verifier.sharded.watching import Key
from verifier.training.baseline_batch import GRADIENT, Place
from verifier.training.other_ways import exceeding
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from verifier.sharded.placing import Placement
    from verifier.training.records import Allowed
    from verifier.training.sharded.lying import Lying
    from verifier.training.sharded.part_batch import Expected, PartBatch
    from verifier.training.side_by_side import SideBySide

T = TypeVar("T")

_MOST = 8  # faults that are told apart; each takes a training more
_OF_GRADIENTS = (Phase.BACKWARD, Phase.CLIP)


@dataclass
class Mending:
    """What the ranks are to have once a fault is put right.

    `kept` are the whole's batches, `expected` what each rank should have in each, `placed` how the results of modules
    lie; `reduced` and `divided` are those of `Comparing`. `heard` gives the loss's gradients by what a module of the
    whole returns, batch by batch, and is None where ranks have other samples, and so gradients of their own.
    """

    lying: Lying
    kept: Sequence[PartBatch]
    expected: Sequence[Sequence[Expected]]
    placed: Mapping[Key, Placement]
    reduced: Mapping[str, int]
    divided: Mapping[str, int]
    heard: Callable[[str], list[dict[str, list[Tensor]]]] | None

    def one_by_one(
        self,
        forced: SideBySide,
        again: Callable[[], SideBySide],
        allowed: Mapping[Phase, Allowed],
        order: Callable[[Place], tuple[float, ...]],
    ) -> tuple[SideBySide, int]:
        """The training in which each place that differs does so by itself, and how many only followed.

        Args:
            forced: A training that was forced in every phase.
            again: Makes it once more, with what is expected then.
            allowed: How far each phase may be off.
            order: In which order places come.
        """
        found: dict[Place, SideBySide] = {}
        now, alone = forced, False
        for _ in range(_MOST):
            first = exceeding(now, allowed)
            wrong = [p for p in first if p.phase is Phase.BACKWARD and p.what == GRADIENT and p not in found]
            if not wrong:
                break
            wrong.sort(key=lambda each: (first[each], order(each)))
            # Where the first one mended nothing else, none follows from another: all are put right at once.
            for place in wrong if alone else wrong[:1]:
                found[place] = now
                self._put_right(str(place.subject))
            now = again()
            left = exceeding(now, allowed)
            alone = all(place in left for place in wrong[1:])
        before, after = exceeding(forced, allowed), exceeding(now, allowed)
        for place, cause in forced.causes.items():
            if place in after:  # a loss shows in gradients, which are right by now
                now.causes.setdefault(place, cause)
        gone = {p for p in before if p.phase in _OF_GRADIENTS and p not in after and p not in found}
        return _restored(now, found), len(gone)

    def _put_right(self, name: str) -> None:
        scope = name.rpartition(".")[0]
        heard = self.heard(scope) if self.heard is not None else None
        for number, kept in enumerate(self.kept):
            if name in kept.gradients:
                pieces = self.lying.cut(name, kept.gradients[name][-1])
                for rank, piece in zip(self.lying.ranks[name], self._terms(name, pieces), strict=True):
                    self.expected[rank][number].raw[self.lying.own[rank][name]] = piece.clone()
            for call, gradient in enumerate((heard[number] if heard else {}).get(scope, [])):
                self._arrives(name, scope, number, call, gradient)

    def _terms(self, name: str, pieces: Sequence[Tensor]) -> Sequence[Tensor]:
        """Pieces as they are to be before they are added up, if they are: all is on the first rank with a part."""
        passes = self.divided.get(name, max(self.divided.values(), default=1))
        pieces = [each * passes for each in pieces]
        number = self.reduced.get(name)
        parts = self.lying.placed[name].parts or (0,) * len(pieces)
        if number is None or number == parts.count(parts[0]):
            return pieces  # which the mean of a few of them is, too
        return [
            each * (number if parts.index(part) == k else 0)
            for k, (part, each) in enumerate(zip(parts, pieces, strict=True))
        ]

    def _arrives(self, name: str, scope: str, number: int, call: int, gradient: Tensor) -> None:
        """What the loss's gradient is to be where each rank's module has returned its part."""
        placed = self.placed.get(Key(scope, "", call))
        ranks = self.lying.ranks[name]
        if placed is None or not placed.reduced or len(placed.indices or ranks) != len(ranks):
            return
        for rank, piece in zip(ranks, cut(placed, gradient, len(ranks)), strict=True):
            row = self.expected[rank][number].arriving.setdefault(
                self.lying.own[rank][name].rpartition(".")[0], []
            )
            if len(row) == call:
                row.append(piece.clone())


def _restored(now: SideBySide, found: Mapping[Place, SideBySide]) -> SideBySide:
    """A training with the errors and causes that places had before they were put right."""
    for place, then in found.items():
        for here, there in zip(now.compared, then.compared, strict=True):
            _take(here.errors, there.errors, place)
            _take(here.figures, there.figures, place)
            _take(here.reasons, there.reasons, place)
        now.causes.pop(place, None)
        _take(now.causes, then.causes, place)
    return now


def _take(table: dict[Place, T], known: Mapping[Place, T], place: Place) -> None:
    if place in known:
        table[place] = known[place]
