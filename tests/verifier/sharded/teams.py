"""Ranks of one process, whose models talk to nobody: all that is compared, without torchrun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from verifier.bench.protocol import Protocol
from verifier.bench.side import Side
from verifier.cells import ORACLE, Cell
from verifier.inputs import tensors
from verifier.ranks import Ranks, group
from verifier.sharded import verifying
from verifier.sharded.candidate import Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


class Team:
    """Asks each candidate as the rank that it stands for."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = candidates

    def ask(self, what: str, *given: Any) -> list[Any]:
        found = []
        for rank, each in enumerate(self.candidates):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(group, "_now", Ranks(rank, len(self.candidates)))
                found.append(each.answers()[what](*given))
        return found


def compared(
    monkeypatch: pytest.MonkeyPatch, whole: nn.Module, parts: Sequence[nn.Module], x: Tensor
) -> verifying.Compared:
    """What the float64 cell comes to."""
    monkeypatch.setattr(verifying, "ranks", lambda: Ranks(0, len(parts)))
    given = tensors(x)
    candidates = [Candidate(part, given, 0) for part in parts]
    for each, part in zip(candidates, parts, strict=True):
        each.build(Cell("cpu", "float32"), wide=False)
        each._built = part.double(), ORACLE
    side = Side.of("baseline", whole, 0)
    team: Any = Team(candidates)
    return verifying.compared(side, team, ORACLE, given, Protocol(), None)
