"""Random numbers: where torch, NumPy and Python stand in their sequences."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator


class RandomState(NamedTuple):
    """States of the generators that models draw from on the CPU."""

    torch: Tensor
    numpy: Any
    python: Any

    def same(self, other: RandomState) -> bool:
        """Whether nothing was drawn between the two."""
        return (
            torch.equal(self.torch, other.torch)
            and self.python == other.python
            and self.numpy[2:] == other.numpy[2:]
            and bool((self.numpy[1] == other.numpy[1]).all())
        )


def random_state() -> RandomState:
    """The states as they are."""
    return RandomState(torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002


def set_random_state(state: RandomState) -> None:
    """Go on from `state`."""
    torch.set_rng_state(state.torch)
    np.random.set_state(state.numpy)  # noqa: NPY002
    random.setstate(state.python)


@contextlib.contextmanager
def same_chance() -> Iterator[None]:
    """Let what is drawn inside be drawn again afterwards: the states are put back on the way out."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)
