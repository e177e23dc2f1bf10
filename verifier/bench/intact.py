"""What a caller has given stays as it was: tensors that the models' programs changed in memory are put back."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from verifier.graph.tensors import dense, same_numbers
from verifier.inputs import named
from verifier.models.copying import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verifier.inputs import Inputs


@dataclass
class Kept:
    """Tensors of the caller by what they are, each with a copy that no program knows, and which were changed."""

    tensors: Mapping[str, Tensor]
    changed: list[str] = field(default_factory=list)
    _copies: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        seen: set[tuple[object, ...]] = set()
        for name, tensor in self.tensors.items():
            place = _place(tensor)
            if place is None or place not in seen:
                self._copies[name] = tensor.detach().clone()
                seen |= set() if place is None else {place}

    def put_back(self) -> None:
        """Compare every tensor with its copy, bit for bit, and write the copy back where they differ."""
        for name, copy in self._copies.items():
            tensor = self.tensors[name]
            if not same_numbers(dense(tensor.detach()), dense(copy)):
                self.changed.append(name)
                with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                    _once(tensor).copy_(_once(copy, like=tensor))
        self._copies.clear()

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of what was changed."""
        if not self.changed:
            return ()
        few = ", ".join(self.changed[:3]) + (", ..." if len(self.changed) > 3 else "")
        return (
            f"{few} changed in memory while the models ran, where torch cannot tell (a NumPy view, dlpack, storage); "
            "put back as it was",
        )


@contextlib.contextmanager
def intact(models: Mapping[str, object], inputs: Inputs) -> Iterator[Kept]:
    """Put parameters, buffers and inputs back as they are now on the way out, also after an exception.

    Needs as much memory again as they take. Of `models`, by the side they are, those
    that are modules are the caller's; what is built of a specification is not.
    """
    tensors = {f"input {name}": tensor for name, tensor in named(inputs)}
    for side, model in models.items():
        if isinstance(model, nn.Module) and not any(map(is_lazy, model.parameters())):
            for name, tensor in state_of(model).items():
                tensors |= _held(f"the {side}'s {name}", tensor)
    kept = Kept({name: tensor for name, tensor in tensors.items() if not tensor.is_meta})
    try:
        yield kept
    finally:
        kept.put_back()


def _held(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor by its name; of one that is put together of others (codes and scales, say) these."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        return {name: tensor}
    parts, _ = flatten()
    found: dict[str, Tensor] = {}
    for part in parts:
        found |= _held(f"{name}.{part}", getattr(tensor, part))
    return found


def _place(tensor: Tensor) -> tuple[object, ...] | None:
    if tensor.layout != torch.strided or tensor.is_nested:
        return None
    return tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _once(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """`tensor` without the repetitions that `like` (or it) has in memory, as after `expand`: so it can be written."""
    like = tensor if like is None else like
    if like.layout != torch.strided or like.is_nested:
        return tensor
    found = tensor.data
    for dim, stride in enumerate(like.stride()):
        if stride == 0 and found.shape[dim] > 1:
            found = found.narrow(dim, 0, 1)
    return found
