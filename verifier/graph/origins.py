"""Where the tensors of a running pass come from, told by their memory."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch.multiprocessing.reductions import StorageWeakRef

from verifier.graph.tensors import same_memory

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Origins:
    """Where each living tensor came from, and who last wrote each piece of memory."""

    producers: dict[int, tuple[weakref.ref[Tensor], int]] = field(default_factory=dict)
    writers: dict[int, int] = field(default_factory=dict)
    # A storage's key is its address; while one of these lives, the address is not given to another.
    _held: dict[int, StorageWeakRef] = field(default_factory=dict)
    _constants: set[int] = field(default_factory=set)

    def constant(self, tensor: Tensor) -> None:
        """A tensor that no site makes: a view of it does not write it, though a view is a site."""
        memory = same_memory(tensor)
        if memory is not None:
            self.hold(tensor, memory)
            self._constants.add(memory)

    def produced(self, tensor: Tensor, site: int) -> None:
        """A tensor that a site made."""
        self.producers[id(tensor)] = (weakref.ref(tensor), site)
        memory = same_memory(tensor)
        if memory is not None and memory not in self._constants:
            self.hold(tensor, memory)
            self.writers.setdefault(memory, site)

    def wrote(self, tensor: Tensor, site: int) -> None:
        """A tensor whose memory a site wrote."""
        memory = same_memory(tensor)
        if memory is not None:
            self.hold(tensor, memory)
            self.writers[memory] = site

    def hold(self, tensor: Tensor, memory: int) -> None:
        """See that the memory's key stands for nothing else from now on."""
        if memory not in self._held:
            self._held[memory] = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]

    def of(self, tensor: Tensor) -> tuple[int, ...]:
        """Sites `tensor`'s content comes from: its producer, and a later writer through another view of it."""
        found = self.producers.get(id(tensor))
        memory = same_memory(tensor)
        writer = None if memory is None else self.writers.get(memory)
        if found is None or found[0]() is not tensor:
            return () if writer is None else (writer,)
        producer = found[1]
        return (producer,) if writer is None or writer <= producer else (producer, writer)
