"""Tensors that `torch.nn.utils.prune` has masked: what it calls the whole one, and the mask it multiplies with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn.utils.prune import BasePruningMethod

from verifier.align import Assembly

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn


def masks(model: nn.Module) -> set[str]:
    """Names of the masks, which are the pruning's own and belong to no tensor of another model."""
    return {f"{name}_mask" for name in _masked(model)}


def whole(
    model: nn.Module,
    own: Mapping[str, Tensor],
    baseline: Mapping[str, Tensor],
    mapping: Mapping[str, Assembly],
) -> dict[str, Assembly]:
    """Of which of the baseline's tensors the masked ones were made, where that is not known and the shapes agree.

    A module's other tensors tell which of the baseline's it is; else its name does.
    """
    taken = {name for assembly in mapping.values() for name in assembly.names}
    found = {}
    for name in _masked(model):
        module, dot, tensor = name.rpartition(".")
        twins = {
            assembly.whole.rpartition(".")[0]
            for known, assembly in mapping.items()
            if known.rpartition(".")[0] == module and assembly.whole is not None
        }
        place = twins.pop() if len(twins) == 1 else module
        twin = f"{place}.{tensor}" if place else tensor
        original = f"{module}{dot}{tensor}_orig"
        if (
            original in own
            and original not in mapping
            and twin in baseline
            and twin not in taken
            and own[original].shape == baseline[twin].shape
        ):
            found[original] = Assembly.of(twin)
    return found


def _masked(model: nn.Module) -> Iterator[str]:
    """Qualified names of masked tensors."""
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, BasePruningMethod):
                tensor = str(hook._tensor_name)
                yield f"{name}.{tensor}" if name else tensor
