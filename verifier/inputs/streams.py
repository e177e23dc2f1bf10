"""Samples that are made when they are needed, batch by batch: memory does not grow with their number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, overload

import msgspec
import torch

from verifier.errors import DataError, UsageError
from verifier.inputs.given import Inputs, named, paired, tensors
from verifier.inputs.samples import batch_size, batches, ends, joined, picked, sample
from verifier.records import InputRange
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from verifier.records import InputInfo


class Source(Protocol):
    """What a stream reads from, again in every pass, and the same each time.

    Attributes:
        samples: How many there are, None where nobody knows before they were read.
        batches: Likewise.
        origin: What to call it.
    """

    samples: int | None
    batches: int | None
    origin: str

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Inputs]]:
        """The batches of the numbers that are wanted, in their order.

        Raises:
            DataError: Samples cannot be read.
        """

    def name(self, sample: int) -> str:
        """What the data calls a sample."""


@dataclass
class Seen:
    """What passes over some samples have shown of them, whatever their batches.

    Attributes:
        samples: How many there are; before the first pass None where the source does not know.
        digest: SHA-256 of all of them; empty before the first pass.
        ranges: Between which numbers all lie; none before the first pass.
    """

    samples: int | None
    digest: str = ""
    ranges: tuple[InputRange, ...] = ()


class Stream(Sequence[Inputs]):
    """Batches that are read anew in every pass, of which the first one is held.

    All that is decided on a few samples (recording, pairing, float64, probes) is decided on the `head`.

    Attributes:
        head: The first batch.
        seen: What is known of all samples.
    """

    def __init__(
        self, source: Source, head: Inputs | None = None, size: int | None = None, seen: Seen | None = None
    ) -> None:
        """A stream of a source, in batches of `size` samples or in the source's own.

        Raises:
            DataError: There is nothing in it, or it cannot be read.
        """
        self._source = source
        self._size = size
        self.seen = seen or Seen(source.samples)
        self._read = 0  # batches, in a pass that came to its end
        if head is None:
            first = next((each for _, each in source.read(lambda number: number == 0)), None)
            if first is None:
                raise DataError(f"{source.origin} holds no samples")
            head = first
        self.head = head if size is None or size >= batch_size(head) else sample(head, size)

    @property
    def ends(self) -> list[int]:
        """The numbers of the samples that everything is decided on: the last and the first of the head."""
        return ends(batch_size(self.head))

    def __len__(self) -> int:
        """How many batches there are, as far as that is known: more than one."""
        known = self._read or self._source.batches or 0
        if self.seen.samples is not None and not self._read:
            known = -(-self.seen.samples // batch_size(self.head))
        return max(2, known)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Inputs: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Inputs]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Inputs | Sequence[Inputs]:
        """The first batch; no other is held."""
        if index != 0:
            raise IndexError("of a stream only the first batch is held")
        return self.head

    def __iter__(self) -> Iterator[Inputs]:
        """All batches.

        Raises:
            DataError: Samples cannot be read, or are not those of the pass before.
        """
        total, count, number = 0, 0, 0
        found: tuple[InputRange, ...] = ()
        for _, whole in self._source.read(lambda _: True):
            for batch in batches(self._like_head(whole), self._size):
                total += _number(batch, count)
                here = ranges(batch)
                found = tuple(map(_wider, found, here)) if found else here
                count += batch_size(batch)
                number += 1
                yield batch
        digest = f"{total % (1 << 256):064x}"
        if self.seen.digest not in ("", digest):
            raise DataError(
                f"{self._source.origin} gives other samples in every pass; let it give the same, in one order"
            )
        self.seen.samples, self.seen.digest, self.seen.ranges = count, digest, found
        self._read = number

    def _like_head(self, batch: Inputs) -> Inputs:
        """The batch with what is said of the first, the dimension of its samples among it."""
        return replace(batch, batch_dim=self.head.batch_dim)

    def along(self, batch_dim: int | None) -> Stream:
        """The same stream, where samples lie along another dimension."""
        return Stream(self._source, replace(self.head, batch_dim=batch_dim), self._size, self.seen)

    def in_batches(self, size: int) -> Stream:
        """The same samples in smaller batches."""
        return Stream(self._source, self.head, size, self.seen)

    def picked(self, numbers: Sequence[int]) -> Inputs:
        """These samples, by number, in one batch."""
        found: dict[int, Inputs] = {}
        offset = 0
        for batch in self:
            count = batch_size(batch)
            found |= {
                number: picked(batch, [number - offset]) for number in numbers if 0 <= number - offset < count
            }
            offset += count
            if len(found) == len(set(numbers)):
                break
        return joined([found[number] for number in numbers])

    def name(self, number: int) -> str:
        """What the data calls a sample."""
        return self._source.name(number)

    @property
    def info(self) -> InputInfo:
        """What a record says of it, once it was read: the head's shapes, with how many samples there are."""
        samples = self.seen.samples
        counted = "" if samples is None else f"{samples:,} "
        shapes = ", ".join(" x ".join(map(str, shape)) for shape in self.head.info.shapes)
        return msgspec.structs.replace(
            self.head.info,
            description=f"{self._source.origin}, {counted}samples in batches of {shapes}",
            files=(),
            samples=self.seen.samples,
            digest=self.seen.digest,
        )


def headed(inputs: Any, batch_dim: int | None, other: Any) -> tuple[Inputs, Stream | None]:
    """What everything is decided on, and all samples where these are streamed: that is then their first batch.

    Args:
        inputs: A stream, or anything `tensors` takes.
        batch_dim: The dimension along which samples lie.
        other: What the candidate is given, where that is something else.

    Raises:
        UsageError: The candidate is given something else, and samples are streamed.
        InputError: As `tensors` and `paired`.
    """
    if not isinstance(inputs, Stream):
        return paired(replace(tensors(inputs), batch_dim=batch_dim), other), None
    if other is not None:
        raise UsageError(
            "samples are streamed to both models alike; what the candidate is given apart goes with --input."
        )
    stream = inputs.along(batch_dim)
    return stream.head, stream


def informed(given: Inputs, stream: Stream | None, hasher: Hasher) -> InputInfo:
    """What a record says of what went in, with a digest of its numbers."""
    if stream is not None:
        return stream.info
    return msgspec.structs.replace(given.info, digest=hasher.of_all(named(given)))


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


def _number(batch: Inputs, offset: int) -> int:
    """A number for what a batch holds: those of all samples add up to the same however they are split."""
    total = 0
    for k in range(batch_size(batch)):
        digest = Hasher().of_all(named(picked(batch, [k])))
        total += int.from_bytes(hashlib.sha256(f"{offset + k}:{digest}".encode()).digest())
    return total


def sizes(parts: Sequence[Inputs]) -> list[int]:
    """The number of samples in each batch; of a stream as far as it is known, without reading it."""
    if isinstance(parts, Stream):
        return [batch_size(parts.head)] * len(parts)
    return [batch_size(each) for each in parts]


def split(parts: Sequence[Inputs], size: int) -> Sequence[Inputs]:
    """The same samples in batches of at most `size`."""
    if isinstance(parts, Stream):
        return parts.in_batches(size)
    return [each for part in parts for each in batches(part, size)]
