"""What samples that went by have shown: how many there were, a digest and their ranges; tallies add up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import torch

from verifier.inputs.given import Inputs, named
from verifier.inputs.samples import batch_size, picked
from verifier.records import InputRange
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from torch import Tensor

_MODULUS = 1 << 256


@dataclass(frozen=True, slots=True)
class Tally:
    """Of some samples: how many, between which numbers they lie, and a sum of their digests.

    Each sample's digest has its number in it, so that their sum is of all of them in their order, however they were
    split and by whomever they were read.
    """

    samples: int = 0
    total: int = 0
    ranges: tuple[InputRange, ...] = ()

    @classmethod
    def of(cls, batch: Inputs, offset: int) -> Tally:
        """Of a batch, the first sample of which has the number `offset`."""
        total, count = 0, batch_size(batch)
        for k in range(count):
            digest = Hasher().of_all(named(picked(batch, [k])))
            total += int.from_bytes(hashlib.sha256(f"{offset + k}:{digest}".encode()).digest())
        return cls(count, total % _MODULUS, ranges(batch))

    def merge(self, later: Tally) -> Tally:
        """Of these samples and further ones."""
        found = self.ranges or later.ranges
        if self.ranges and later.ranges:
            found = tuple(map(_wider, self.ranges, later.ranges))
        return Tally(self.samples + later.samples, (self.total + later.total) % _MODULUS, found)

    @property
    def digest(self) -> str:
        """The sum, as hexadecimal digits."""
        return f"{self.total:064x}"


def ranges(inputs: Inputs) -> tuple[InputRange, ...]:
    """The least and the greatest finite number of each tensor that goes in."""
    return tuple(_range(name, tensor) for name, tensor in named(inputs))


def _range(name: str, tensor: Tensor) -> InputRange:
    numbers = tensor.detach()
    numbers = (torch.view_as_real(numbers) if numbers.is_complex() else numbers).to(torch.float64)
    finite = numbers[numbers.isfinite()]
    low, high = finite.aminmax() if finite.numel() else (None, None)
    return InputRange(
        name=name,
        dtype=str(tensor.dtype).removeprefix("torch."),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
    )


def _wider(one: InputRange, two: InputRange) -> InputRange:
    lows, highs = (
        [each for each in ends if each is not None] for ends in ((one.low, two.low), (one.high, two.high))
    )
    return msgspec.structs.replace(one, low=min(lows, default=None), high=max(highs, default=None))
