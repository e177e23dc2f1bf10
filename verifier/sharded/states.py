"""Buffers that a pass writes, as running statistics: noted, put back, and compared where one side writes them."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from verifier.sharded.settings import settings_of
from verifier.sharded.watching import STATE, Watch, local, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from verifier.sharded.aligning import Names
    from verifier.sharded.candidate import Noted
    from verifier.sharded.watching import Pass


@contextlib.contextmanager
def put_back(model: nn.Module) -> Iterator[dict[str, Tensor | None]]:
    """Buffers of a model by name, as they are before; afterwards they are so again."""
    held = [
        (module, name, buffer, None if buffer is None else local(buffer.detach()).clone(), f"{front}.{name}")
        for front, module in model.named_modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        yield {plain(full.removeprefix(".")): copy for _, _, _, copy, full in held}
    finally:
        for module, name, buffer, copy, _ in held:
            module._buffers[name] = buffer
            if buffer is not None and copy is not None and differs(buffer, copy):
                with torch.no_grad():
                    local(buffer).copy_(copy)


def differs(tensor: Tensor, before: Tensor | None) -> bool:
    """Whether a buffer holds other numbers than before."""
    now = local(tensor.detach())
    if before is None or now.shape != before.shape or now.dtype != before.dtype:
        return True
    return not bool(((now == before) | (now.isnan() & before.isnan())).all())


def only_written(passes: Sequence[Pass], noted: Sequence[Noted], names: Sequence[Names]) -> list[Noted]:
    """Leave of the baseline's passes and the ranks' only the buffers that one of them writes."""
    wanted = set[str]().union(*(each.written for each in passes))
    for called, each in zip(names, noted, strict=True):
        wanted |= {called.whole(name) for name in each.written}
    for found in passes:
        for key in [
            key for key, event in found.events.items() if event.op == STATE and key.name not in wanted
        ]:
            del found.events[key]
    return [
        replace(each, held=tuple(h for h in each.held if h.op != STATE or called.whole(h.key.name) in wanted))
        for called, each in zip(names, noted, strict=True)
    ]


def watched(model: nn.Module, args: Any, kwargs: Any, **options: Any) -> Pass:
    """One pass of a model, without gradients, after which its buffers are as before."""
    watch = Watch(model, **options)
    watch.noted.settings = {plain(name): settings_of(module) for name, module in model.named_modules()}
    with put_back(model) as before, torch.no_grad():
        with watch:
            outputs = model(*args, **kwargs)
        found = watch.returned(outputs)
        watch.states(before, differs)
    return found
