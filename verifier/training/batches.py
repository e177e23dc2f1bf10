"""What both models are trained on, batch by batch: known data, or whatever gives batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from verifier.errors import InputError, UsageError
from verifier.training.data import Data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from verifier.cells import Cell

    Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Batches:
    """The batches of a training.

    Attributes:
        every: Inputs and labels, each batch for itself, on the device and in the dtype they are trained in.
        epoch: How many batches make an epoch.
        source: Where they come from, for the record.
        labelled: Whether labels are classes of known data, of which a model may have fewer.
    """

    every: list[Batch]
    epoch: int
    source: str
    labelled: bool

    @classmethod
    def of(
        cls,
        data: Data | Iterable[Batch] | Callable[[], Iterable[Batch]],
        size: int,
        count: int,
        cell: Cell,
        seed: int,
    ) -> Batches:
        """`count` batches: of known data whole ones of `size`, epoch after epoch; else the first that are given.

        Raises:
            UsageError: There are fewer.
            InputError: What is given are no pairs of tensors.
        """
        if isinstance(data, Data):
            made = list(itertools.islice(_whole(data, size, cell, seed), count))
            return cls(made, max(1, len(data.labels) // size), data.source, labelled=True)
        found = data() if callable(data) else data
        if not isinstance(found, Iterable):
            raise InputError(
                f"the data are to be batches, one after the other, and are {type(found).__name__}."
            )
        made = [_checked(each, cell) for each in itertools.islice(found, count)]
        if len(made) < count:
            raise UsageError(
                f"the data give {len(made)} batches, {count} are needed: give --steps {len(made)}, or less."
            )
        return cls(made, count, "batches given by the caller", labelled=False)


def _checked(batch: object, cell: Cell) -> Batch:
    if not isinstance(batch, tuple | list) or len(batch) != 2 or not all(map(torch.is_tensor, batch)):
        raise InputError(
            "the data are to give batches of two tensors each, what goes in and what should come out; one is "
            f"{type(batch).__name__}."
        )
    inputs, labels = (
        each.to(cell.device, cell.torch_dtype if each.is_floating_point() else None) for each in batch
    )
    return inputs, labels


def _whole(data: Data, size: int, cell: Cell, seed: int) -> Iterator[Batch]:
    if len(data.labels) < size:
        raise UsageError(
            f"a batch of {size} is more than the {len(data.labels)} images there are: give --batch-size "
            f"{len(data.labels)}, or less."
        )
    for epoch in itertools.count():
        for images, labels in data.batches(size, seed=seed, epoch=epoch, dtype=cell.torch_dtype):
            if len(labels) == size:
                yield images.to(cell.device), labels.to(cell.device)
