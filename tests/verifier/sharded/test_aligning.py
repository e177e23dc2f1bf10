"""What a process calls its modules, and what the whole calls them."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from verifier.sharded.aligning import Names, lists, named, part_of
from verifier.sharded.candidate import Noted

WEIGHTS = {
    f"layers.{k}.weight": torch.randn(4, 4, generator=torch.Generator().manual_seed(k)) for k in range(4)
}
KINDS = dict.fromkeys(["", "layers", *(f"layers.{k}" for k in range(4))], ("Module",))


def noted(*names: str) -> Noted:
    return Noted((), dict.fromkeys(names, ("Module",)), {}, 1, apart=0.0, notes=())


def names_of(own: dict[str, Tensor], *names: str, earlier: Counter[str] | None = None) -> Names:
    told = noted(*names)
    shapes = {name: tuple(each.shape) for name, each in own.items()}
    return named(WEIGHTS, KINDS, told, shapes, own.get, earlier or Counter(), lists(told.kinds))


def test_a_wrapper_in_front_is_left_out() -> None:
    found = names_of({}, "", "inner", "inner.layers", *(f"inner.layers.{k}" for k in range(4)))
    assert found.whole("inner.layers.2.weight") == "layers.2.weight"
    assert found.outside("")
    assert not found.outside("inner")


def test_layers_of_a_late_stage_are_told_by_their_weights() -> None:
    own = {f"layers.{k}.weight": WEIGHTS[f"layers.{k + 2}.weight"] for k in range(2)}
    found = names_of(own, "", "layers", "layers.0", "layers.1")
    assert found.whole("layers.1.weight") == "layers.3.weight"


def test_layers_whose_weights_tell_nothing_go_on_where_earlier_ranks_end() -> None:
    own = {f"layers.{k}.weight": torch.zeros(4, 4) for k in range(2)}
    found = names_of(own, "", "layers", "layers.0", "layers.1", earlier=Counter({"layers.": 2}))
    assert found.whole("layers.0.weight") == "layers.2.weight"


def test_a_part_of_a_parameter_is_recognised() -> None:
    whole = WEIGHTS["layers.0.weight"]
    assert part_of(whole, whole[:, 1:3])
    assert not part_of(whole, whole[:, 1:3] * 1.01)
    assert not part_of(whole, whole[:2, :2])
