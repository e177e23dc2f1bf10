"""Dropouts: the whole model drops what the processes have dropped between them, and their draws are judged."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from verifier.graph.operators import DROPOUTS
from verifier.records import Cause
from verifier.sharded.aligning import wide
from verifier.sharded.placing import by_shape, join, place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.sharded.aligning import Aligned
    from verifier.sharded.asking import Crew
    from verifier.sharded.watching import Event, Key, Pass

_LIMIT = 1e-6  # by which inputs may be off for their placement to be told
_CHANCE = 1e-9  # with which draws may be alike on two ranks that do not share a seed


@dataclass
class Draws:
    """What was dropped at each key, joined, and causes where ranks draw alike that should not, or the reverse."""

    crew: Crew
    aligned: Aligned
    masks: dict[Key, Tensor] = field(default_factory=dict)
    causes: dict[Key, Cause] = field(default_factory=dict)

    def drop(self, key: Key, given: Tensor, share: float) -> Tensor | None:
        """What a dropout of the whole's gives with the draws of the processes; None if they have none there."""
        if key not in self.masks:
            mask = self._joined(key, wide(given))
            if mask is None:
                return None
            self.masks[key] = mask
        kept = self.masks[key].to(given.dtype).to(given.device)
        return given * kept / (1 - share) if share < 1 else given * 0

    def _joined(self, key: Key, whole: Tensor) -> Tensor | None:
        parts = self.aligned.parts.get(key, ())
        if not any(parts):
            return None
        asked = [list(each) for each in parts]
        made = [wide(e) for rank in self.crew.ask("tensor", asked) for e in rank]
        given = [wide(e) for rank in self.crew.ask("given", asked) for e in rank if e is not None]
        if len(given) != len(made):
            return None
        placed = place(whole, given, _LIMIT) or by_shape(whole, given)
        kept = [((m != 0) | (g == 0)).double() for m, g in zip(made, given, strict=True)]
        if placed is None:
            return None
        ranks = [rank for rank, each in enumerate(parts) for _ in each]
        self._judge(key, placed.kind, kept, ranks)
        if placed.kind != "shard" and placed.indices is None:
            return kept[0]
        joined = (
            join(placed, whole, kept) if placed.kind == "shard" else join(placed, whole, kept[:1] * len(kept))
        )
        return None if joined is None else (joined.nan_to_num(1.0) != 0).double()

    def _judge(self, key: Key, kind: str, kept: Sequence[Tensor], ranks: Sequence[int]) -> None:
        """Copies are to be dropped alike, and parts by draws of their own."""
        for (one, a), (two, b) in itertools.combinations(zip(ranks, kept, strict=True), 2):
            if one == two:
                continue
            # Of parts of unlike sizes the draws are alike as far as the smaller one goes.
            most = min(a.numel(), b.numel())
            first, second = a.flatten()[:most], b.flatten()[:most]
            alike = torch.equal(first, second)
            if kind == "shard" and alike and _by_chance(float(first.mean()), most) < _CHANCE:
                self.causes[key] = Cause(
                    code="shard-seed-shared",
                    summary=f"ranks {one} and {two} drop the same places of different parts: they share a seed",
                    confirmed=True,
                    evidence=("what goes in is a part on each rank, and what is dropped is the same",),
                    remedy="let each rank draw with a seed of its own where it has a part",
                )
                return
            if kind == "replica" and not alike:
                self.causes[key] = Cause(
                    code="shard-seed-differs",
                    summary=f"ranks {one} and {two} drop different places of copies of one tensor",
                    confirmed=True,
                    evidence=("what goes in is the same on both ranks, and what is dropped is not",),
                    remedy="let all ranks draw with one seed where they have copies",
                )
                return


def _by_chance(kept: float, count: int) -> float:
    """How often so many draws are all alike on two ranks that draw apart."""
    return (kept**2 + (1 - kept) ** 2) ** count if count else 1.0


def drops(event: Event) -> bool:
    """Whether an event is a dropout that is on."""
    return event.op in DROPOUTS and event.given is not None


def dropping(found: Pass) -> bool:
    """Whether any dropout was on in a pass."""
    return any(drops(event) for event in found.events.values())
