"""Data sets on disk, sample by sample: decoded in worker processes, in batches that are not held."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset

from verifier.border import heartbeat
from verifier.border.error_texts import first_line
from verifier.errors import DataError, ProcessError, VerifierError
from verifier.inputs.given import Inputs, as_arguments, described
from verifier.inputs.images import as_float, read_photographs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_WORKERS = 4
_FEW = 4  # batches that are not worth a process, which has to import torch first
_PATIENCE = 1800  # seconds in which the processes that decode have a batch ready


class Unread(NamedTuple):
    """A sample that cannot be read, and why: errors do not travel from a worker as they are."""

    why: str


class Samples(Protocol):
    """What can be asked for any of its samples, here and in a worker process."""

    @property
    def slow(self) -> bool:
        """Whether making one takes so long that worker processes are worth it."""

    @property
    def identity(self) -> str:
        """By what all are known without reading them, empty where only reading tells."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, number: int) -> Any:
        """The arguments of one sample without a batch dimension, or why it cannot be read (`Unread`)."""

    def name(self, number: int) -> str:
        """What the data calls it."""


class Indexed:
    """A source of any data set that gives its samples by number.

    Attributes:
        samples: How many there are.
        batches: Likewise, of batches.
        origin: What to call it.
    """

    def __init__(self, data: Samples, size: int, origin: str) -> None:
        self._data, self._size = data, size
        self.samples: int | None = len(data)
        self.batches: int | None = -(-len(data) // size)
        self.origin = origin

    def read(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, int, Inputs]]:
        """The batches of the numbers that are wanted, each with its number and its first sample's.

        Raises:
            DataError: A sample cannot be read, or has another shape than those beside it.
        """
        numbers = [number for number in range(self.batches or 0) if wanted(number)]
        workers = self.readers if len(numbers) > _FEW else 0
        loader = DataLoader(
            _Typed(self._data),
            batch_sampler=[self._members(number) for number in numbers],
            num_workers=workers,
            collate_fn=_as_arrays if workers else list,
            multiprocessing_context="spawn" if workers else None,
            generator=torch.Generator(),  # else it draws from the process's
            timeout=_PATIENCE if workers else 0,
        )
        with _main_left_out():
            batches = iter(loader)
        for number in numbers:
            heartbeat.stage(f"reading {self.origin}")
            try:
                found = next(batches)
            except RuntimeError as error:  # a worker has died, or does not answer; samples do not raise
                if not workers:
                    raise
                raise ProcessError(
                    f"the processes that decode {self.origin} have ended, or are stuck: {first_line(error)}"
                ) from error
            yield number, number * self._size, self._inputs(self._members(number), _as_tensors(found))

    @property
    def identity(self) -> str:
        """By what all samples are known without reading them."""
        return self._data.identity

    @property
    def readers(self) -> int:
        """Worker processes that decode, half as many as this one has cores for itself; none for what is quick."""
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return min(_WORKERS, max(1, (os.cpu_count() or 2) // (2 * here))) if self._data.slow else 0

    def name(self, sample: int) -> str:
        """What the data calls a sample."""
        return self._data.name(sample)

    def _members(self, number: int) -> list[int]:
        first = number * self._size
        return list(range(first, min(first + self._size, len(self._data))))

    def _inputs(self, numbers: Sequence[int], found: Sequence[Any]) -> Inputs:
        bad = next(
            ((k, each.why) for k, each in zip(numbers, found, strict=True) if isinstance(each, Unread)), None
        )
        if bad is not None:
            raise DataError(f"{self.name(bad[0])} cannot be read: {bad[1]}. Mend or remove it.")
        if isinstance(found[0], Pair):
            given, other = (self._stacked(numbers, [each[side] for each in found]) for side in (0, 1))
            return replace(given, other=other)
        return self._stacked(numbers, found)

    def _stacked(self, numbers: Sequence[int], found: Sequence[Any]) -> Inputs:
        flat = [pytree.tree_flatten(each) for each in found]
        for number, (tensors, structure) in zip(numbers, flat, strict=True):
            one, two = [[tuple(t.shape) for t in each] for each in (flat[0][0], tensors)]
            if one != two or structure != flat[0][1]:
                raise DataError(
                    f"{self.name(number)} is of shape {_said(two)} and {self.name(numbers[0])} of {_said(one)}; "
                    "what goes into one batch must be of one shape: pad it"
                )
        stacked = [torch.stack(each) for each in zip(*(tensors for tensors, _ in flat), strict=True)]
        args, kwargs = as_arguments(pytree.tree_unflatten(stacked, flat[0][1]), self.origin)
        return described(args, kwargs, self.origin)


@contextlib.contextmanager
def _main_left_out() -> Iterator[None]:
    """Let processes that are started not run the caller's script once more: they need nothing of it."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: vars(main)[name] for name in ("__spec__", "__file__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(kept)


class Pair(NamedTuple):
    """What the baseline is given of a sample, and what the candidate is."""

    baseline: Any
    candidate: Any


def _said(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _as_arrays(found: list[Any]) -> Any:
    """What a worker sends: of tensors their numbers; to share a file takes a socket, whose path has to be short."""
    return pytree.tree_map_only(torch.Tensor, torch.Tensor.numpy, found)


def _as_tensors(found: Any) -> Any:
    return pytree.tree_map_only(np.ndarray, torch.from_numpy, found)


class _Typed(Dataset[Any]):
    def __init__(self, data: Samples) -> None:
        self._data = data

    def __getitem__(self, number: int) -> Any:
        """One sample."""
        return self._data[number]


@dataclass(frozen=True)
class Photographs:
    """Photographs as `verifier.inputs.images` prepares them.

    `candidate` names the candidate's preprocessing where it makes other tensors of them, empty where it does not.
    """

    files: tuple[Path, ...]
    image_size: int
    candidate: str = ""
    seed: int = 0
    slow: bool = field(default=True, init=False)

    @property
    def identity(self) -> str:
        """Names and sizes of the files."""
        sizes = [f"{file.name}\0{file.stat().st_size}" for file in self.files if file.exists()]
        return hashlib.sha256("\n".join(sizes).encode(errors="surrogateescape")).hexdigest()

    def __len__(self) -> int:
        """How many there are."""
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        """One of them: a tensor, or why there is none."""
        from verifier.preprocessing import named, prepared, recipe  # noqa: PLC0415 - only photographs need it

        chosen = recipe("classification", self.image_size)
        try:
            (found,) = read_photographs(
                [self.files[number]], lambda path: prepared(path, chosen, self.seed, number)
            )
            if not self.candidate:
                return found.output[0]
            made = named(self.candidate, chosen).made(
                self.files[number], found.stages["decode"][0], self.seed, number, found.drawn
            )
            return Pair(found.output[0], as_float(made.output[0]))
        except VerifierError as error:
            return Unread(str(error))

    def name(self, number: int) -> str:
        """The file's."""
        return self.files[number].name


@dataclass(frozen=True)
class Likeness:
    """Of each photograph whether both preprocessings make the same of it, as far as rounding goes."""

    photographs: Photographs
    slow: bool = field(default=True, init=False)
    identity: str = field(default="", init=False)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.photographs)

    def __getitem__(self, number: int) -> Any:
        """A tensor with one boolean, or why there is none."""
        from verifier.preprocessing import PhotographComparison, named, recipe  # noqa: PLC0415 - as above

        made = self.photographs[number]
        if isinstance(made, Unread) or torch.equal(made.baseline, made.candidate):
            return made if isinstance(made, Unread) else torch.tensor([True])
        chosen = recipe("classification", self.photographs.image_size)
        compared = PhotographComparison(
            chosen, named(self.photographs.candidate, chosen), self.photographs.seed
        )
        try:
            read_photographs([self.photographs.files[number]], compared.add)
        except VerifierError as error:
            return Unread(str(error))
        return torch.tensor([not compared.differs])

    def name(self, number: int) -> str:
        """The file's."""
        return self.photographs.name(number)
