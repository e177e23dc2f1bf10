"""Functions that belong to a model follow its copy."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from verifier.models.copying import copy_with, state_of


def in_double(model: nn.Module) -> Any:
    state = {name: tensor.double() for name, tensor in state_of(model).items()}
    return copy_with(model, state, lambda tensor: tensor.double(), role="model")


def result(model: nn.Module) -> Tensor:
    found: Tensor = model(torch.ones(2, 3, dtype=torch.float64))
    return found


def test_a_forward_that_closes_over_its_layer_computes_with_the_copy() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2))
    forward = model[0].forward
    model[0].forward = lambda x: forward(x) * 2
    expected = 2 * nn.functional.linear(
        torch.ones(2, 3, dtype=torch.float64), model[0].weight.double(), model[0].bias.double()
    )
    assert result(in_double(model)).equal(expected)


def test_a_method_of_the_original_becomes_one_of_the_copy() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2))
    model.forward = model[0].forward
    copied = in_double(model)
    assert result(copied).dtype == torch.float64
    assert copied.forward.__self__ is copied[0]


def wrapped(module: nn.Module, scale: float, x: Tensor) -> Tensor:
    found: Tensor = module.before(x) * scale  # type: ignore[operator]
    return found


def test_a_partial_of_the_layer_follows_as_wrappers_of_libraries_have_it() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2))
    model[0].before = model[0].forward
    model[0].forward = functools.update_wrapper(functools.partial(wrapped, model[0], 3.0), model[0].before)
    assert result(in_double(model)).dtype == torch.float64


def test_a_hook_that_holds_another_module_holds_its_copy() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    other = model[1]
    model[0].register_forward_hook(lambda _module, _args, output: other(output))
    assert result(in_double(model)).dtype == torch.float64


def test_a_module_beside_the_model_is_copied_with_it() -> None:
    beside = nn.Linear(2, 2)
    model: Any = nn.Sequential(nn.Linear(3, 2))
    model[0].register_forward_hook(lambda _module, _args, output: beside(output))
    copied = in_double(model)
    assert result(copied).dtype == torch.float64
    assert beside.weight.dtype == torch.float32


LAYER = nn.Linear(3, 3)


def through_a_global(x: Tensor) -> Any:
    return LAYER(x)


def test_a_global_that_a_patched_forward_names_is_the_copy_there() -> None:
    model: Any = nn.Sequential(LAYER)
    model.forward = through_a_global
    assert result(in_double(model)).dtype == torch.float64
    assert LAYER.weight.dtype == torch.float32


def test_a_function_that_holds_itself_is_copied_once() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2))
    layer = model[0]

    def forward(x: Tensor, depth: int = 0) -> Tensor:
        return forward(x, 1) if depth == 0 else nn.functional.linear(x, layer.weight)

    model.forward = forward
    assert result(in_double(model)).dtype == torch.float64


def test_a_function_without_modules_stays_itself() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2))
    scale = 2.0
    model.rule = lambda x: x * scale
    assert in_double(model).rule is model.rule
