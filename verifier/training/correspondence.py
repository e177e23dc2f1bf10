"""How what the candidate has is made from what the baseline has, and how much of it is overwritten."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.align import Assembly, Layout


class Forcing(enum.Enum):
    """What of the candidate's is overwritten with the baseline's once it was compared.

    `STEPS` are weights and running statistics, as each batch leaves them: a batch is then judged whole, whatever way
    it goes. `PHASES` are all tensors but those an optimiser keeps, which follow from the gradients it was given.
    """

    NOTHING = enum.auto()
    STEPS = enum.auto()
    PHASES = enum.auto()


@dataclass(frozen=True)
class Correspondence:
    """How what the candidate has is made from what the baseline has.

    `recipes` are those of its tensors, by its own names; `layouts` those of pairs, by position, whose tensors the
    candidate lays out otherwise; `buffers` names which of its tensors are none that are trained; `outputs` are the
    pairs of what the models return.
    """

    recipes: Mapping[str, Assembly]
    layouts: Mapping[int, Layout]
    buffers: frozenset[str]
    outputs: frozenset[int] = frozenset()
