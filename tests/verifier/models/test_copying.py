"""Copies of models: new modules, the tensors they were given, and everything else as deepcopy would have it."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import torch
from torch import nn

from tests.networks import network
from verifier.models.copying import copy_with, state_of


def copied(model: nn.Module) -> Any:
    return copy_with(model, state_of(model), lambda tensor: tensor, role="model", written=frozenset())


class Odd(nn.Module):
    """Refers to its own parts in every way a module can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.again = self.conv
        self.outside_the_tree = [self.conv, (self.conv,), {"conv": self.conv}]
        self.method = self.conv.forward
        self.table = {"scale": torch.ones(2)}
        self.settings: list[str] = []
        self.same_settings = self.settings

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.restored = True


class ByItself(nn.Module):
    """Says how it is copied."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def __deepcopy__(self, memo: dict[int, Any]) -> ByItself:
        made = ByItself(copy.deepcopy(self.part, memo))
        made.by_itself = True  # type: ignore[assignment] # a plain attribute
        return made


def test_tensors_are_shared_and_modules_are_not() -> None:
    model = network()

    other = copied(model)

    assert type(other) is type(model)
    assert not {id(module) for module in other.modules()} & {id(module) for module in model.modules()}
    assert [name for name, _ in other.named_modules()] == [name for name, _ in model.named_modules()]
    for name, tensor in state_of(model).items():
        assert state_of(other)[name].data_ptr() == tensor.data_ptr()


def test_what_a_copy_refers_to_is_its_own() -> None:
    model = Odd()

    other = copied(model)

    assert other.again is other.conv is not model.conv
    assert other.outside_the_tree[0] is other.outside_the_tree[1][0] is other.conv
    assert other.outside_the_tree[2]["conv"] is other.conv
    assert other.method.__self__ is other.conv
    assert other.table["scale"] is not model.table["scale"]
    assert other.settings is other.same_settings is not model.settings
    assert other.restored


def test_a_module_that_says_how_it_is_copied_is_asked() -> None:
    part = nn.Linear(2, 2)
    model = nn.ModuleList([ByItself(part), part])

    other = copied(model)

    assert other[0].by_itself
    assert other[0].part is other[1] is not part


def test_hooks_of_a_copy_are_its_own() -> None:
    model = network()
    model.register_forward_hook(lambda *_: None)

    other = copied(model)
    other.register_forward_hook(lambda *_: None)

    assert len(model._forward_hooks) == 1
    assert len(other._forward_hooks) == 2


def test_a_copy_is_gone_with_its_last_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2)))
    gc.disable()
    try:
        copied = copy_with(model, state_of(model), lambda tensor: tensor, role="model")
        gone = weakref.ref(copied)
        del copied
        assert gone() is None
    finally:
        gc.enable()
