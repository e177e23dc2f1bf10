"""A name for what a set of tensors holds, so that two results can be seen to rest on the same numbers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

_PIECE = 1 << 24  # bytes hashed at once: what does not lie in one block is copied, piece by piece


class Hasher:
    """SHA-256 of tensors; one that two models share is read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], str] = {}

    def of_all(self, named: Iterable[tuple[str, Tensor]]) -> str:
        """Over the names, dtypes, shapes and bits of tensors in the order of their names, as hexadecimal digits.

        Strides and device do not count. Of sparse and quantised tensors the dense values do.
        """
        whole = hashlib.sha256()
        for name, tensor in sorted(named, key=lambda each: each[0]):
            line = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0{self._of(tensor)}\n"
            whole.update(line.encode(errors="surrogatepass"))  # a module may be called anything
        return whole.hexdigest()

    def _of(self, tensor: Tensor) -> str:
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
            return _digest(tensor)
        # Sound as long as the caller holds the tensors, which keeps their memory from being used again.
        place = tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
        if place not in self._known:
            self._known[place] = _digest(tensor)
        return self._known[place]


def _digest(tensor: Tensor) -> str:
    found = hashlib.sha256()
    for piece in _pieces(tensor):
        found.update(piece)
    return found.hexdigest()


def _pieces(tensor: Tensor) -> Iterator[bytes]:
    """The bytes of a tensor's elements in row-major order."""
    plain = tensor.detach()
    if plain.is_quantized:
        plain = plain.dequantize()
    elif plain.layout != torch.strided:
        plain = plain.to_dense()
    flat = plain.resolve_conj().resolve_neg().reshape(-1)
    step = max(1, _PIECE // flat.element_size())
    for start in range(0, flat.numel(), step):
        piece = flat[start : start + step].contiguous().cpu()
        yield piece.view(torch.uint8).numpy().tobytes()
