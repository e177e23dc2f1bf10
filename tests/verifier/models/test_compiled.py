"""Models of which a part is compiled, and the program inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from verifier.models.compiled import compiled_parts, eager
from verifier.models.copying import state_of


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()


def test_what_is_not_compiled_is_its_own_program() -> None:
    plain = model()
    assert compiled_parts(plain) == []
    assert eager(plain, "model") is plain


def test_names_are_those_of_the_program_inside() -> None:
    whole = torch.compile(model(), backend="eager")
    assert isinstance(whole, nn.Module)
    assert compiled_parts(whole) == [""]
    assert list(state_of(eager(whole, "model"))) == list(state_of(model()))


def test_a_compiled_part_is_replaced_by_what_it_wraps() -> None:
    partly = model()
    partly[0] = torch.compile(partly[0], backend="eager")  # type: ignore[assignment]
    assert compiled_parts(partly) == ["0"]
    inside = eager(partly, "model")
    assert list(state_of(inside)) == list(state_of(model()))
    assert compiled_parts(inside) == []
    assert compiled_parts(partly) == ["0"]


def test_a_model_compiled_in_place_is_compiled() -> None:
    here = model()
    here.compile(backend="eager")
    assert compiled_parts(here) == [""]
    assert compiled_parts(eager(here, "model")) == []


def test_a_decorated_forward_is_compiled() -> None:
    class Decorated(nn.Module):
        @torch.compile(backend="eager")
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    assert compiled_parts(nn.Sequential(Decorated())) == ["0"]
