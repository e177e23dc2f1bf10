from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reports.headline import headline
from verifier import verify
from verifier.records import LOADING

if TYPE_CHECKING:
    from verifier.storage.saving import Verification


class Tower(nn.Module):
    """Convolutions and batch norms, one after the other."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            *(layer for _ in range(3) for layer in (nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU()))
        )
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def trained(seed: int) -> Tower:
    """A network with no tensor as it was drawn."""
    model = Tower(seed)
    draw = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.mul_(1 + 0.3 * torch.rand(tensor.shape, generator=draw))
            tensor.add_(0.1 + 0.3 * torch.rand(tensor.shape, generator=draw))
        else:
            tensor.fill_(1000)
    return model


def compared(candidate: Tower) -> Verification:
    return verify(trained(1), candidate, torch.randn(2, 6, 12, 12), weights="as-is", cells=("cpu/float64",))


def loading(found: Verification) -> list[str]:
    return [each.summary for each in found.static if each.kind == LOADING]


def test_where_nothing_was_loaded_one_sentence_says_so() -> None:
    found = compared(Tower(2))
    # Of six numbers, as biases here have, it cannot be told.
    said = "nothing was loaded: 18 of 21 tensors keep their initial values"
    assert loading(found) == [said]
    assert headline(found).startswith(f"diverged: {said}; 6 sites are wrong, first layers.0")


def test_where_a_part_was_loaded_it_is_not_nothing() -> None:
    partly = Tower(2)
    whole = trained(1).state_dict()
    partly.load_state_dict(
        {name: whole[name] for name in whole if name.startswith("layers.0.")}, strict=False
    )
    found = compared(partly)
    assert loading(found) == ["17 of 21 tensors keep their initial values"]


def test_weights_of_another_training_are_no_initial_values() -> None:
    assert not any("initial" in said for said in loading(compared(trained(3))))


def test_where_all_was_loaded_nothing_is_said() -> None:
    assert loading(compared(trained(1))) == []


class Turning(nn.Module):
    """Rotary positions as complex numbers, in a buffer that is saved, as some language models keep theirs."""

    turns: Tensor

    def __init__(self, base: float = 100.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 8)
        angles = torch.outer(torch.arange(5.0), base ** -(torch.arange(4.0) / 4))
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(self.linear(x).reshape(*x.shape[:-1], 4, 2))
        out: Tensor = torch.view_as_real(pairs * self.turns).flatten(-2)
        return out


def test_complex_buffers_are_compared_as_others() -> None:
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    assert verify(Turning(), Turning(), x).verdict == "match"
    found = verify(Turning(), Turning(90.0), x)
    assert found.verdict == "diverged"
    assert {row.op for row in found.culprits} == {"mul"}
