"""What is noted of a model that its process drives: its setting, its tensors, what it returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from verifier.cells import DTYPES, HALVES, Cell
from verifier.certificates.content import TensorRecord, WeightRecord
from verifier.certificates.file import storable
from verifier.certificates.sampled import Part
from verifier.environment import tf32_allowed
from verifier.models.copying import state_of
from verifier.weights.calibration import varies
from verifier.weights.choosing import LEARNT

if TYPE_CHECKING:
    from verifier.graph.returned import Returned
    from verifier.weights.fingerprint import Hasher

_FULL = 1 << 16  # bytes of an output that is kept in full


def outputs_of(returned: Returned) -> tuple[tuple[TensorRecord, ...], list[Part], dict[int, Tensor]]:
    """What is said of the outputs, their summaries, of all of their elements, and those that are kept in full."""
    records, parts, full = [], [], {}
    for k, tensor in enumerate(returned.values()):
        stored = tensor.numel() * tensor.element_size() <= _FULL and storable(tensor)
        if stored:
            full[k] = tensor.detach().cpu().clone()
        records.append(
            TensorRecord(name=str(k), shape=tuple(tensor.shape), dtype=dtype_of(tensor), stored=stored)
        )
        parts.append(Part(tensor, None))
    return tuple(records), parts, full


def weight_of(name: str, tensor: Tensor, hasher: Hasher, *, learnt: bool) -> WeightRecord:
    """What is said of a parameter or buffer."""
    digest = hasher.of_all([("", tensor)])
    return WeightRecord(
        name=name,
        dtype=dtype_of(tensor),
        shape=tuple(tensor.shape),
        digest=digest,
        own=digest,
        constant=not varies(tensor),
        learnt=learnt or name.rpartition(".")[2] in LEARNT,
    )


def cell_of(model: nn.Module, given: list[Tensor]) -> Cell:
    """The setting that a pass runs in, if it began now."""
    first = next((t for t in (*state_of(model).values(), *given) if t.is_floating_point()), torch.empty(0))
    kind = first.device.type
    if torch.is_autocast_enabled(kind):
        lowered = str(torch.get_autocast_dtype(kind)).removeprefix("torch.")
        if lowered in HALVES:
            return Cell(str(first.device), lowered, autocast=True)
    name = dtype_of(first)
    if name == "float32" and kind == "cuda" and tf32_allowed():
        name = "tf32"
    return Cell(str(first.device), name if name in DTYPES else "float32")


def dtype_of(tensor: Tensor) -> str:
    """A tensor's dtype by its name in records."""
    return str(tensor.dtype).removeprefix("torch.")
