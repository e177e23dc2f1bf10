"""Names of files are places in a tree of modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from verifier.forms.paths import module_of, registered


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("__module.layer1.0.conv1/aten::_convolution/Convolution", "layer1.0.conv1"),
        ("aten::add/Add", ""),
        ("/Add", ""),
        ("Multiply_3169", ""),
    ],
)
def test_a_node_comes_from_the_module_that_its_name_says(name: str, module: str) -> None:
    assert module_of(name) == module


def test_a_tensor_is_found_under_its_name_and_beside_one_that_has_it() -> None:
    program = nn.Module()
    first = registered(program, "a.weight", nn.Parameter(torch.zeros(1)))
    second = registered(program, "a.weight", torch.ones(1))
    assert (first, second) == (("a", "weight"), ("a", "weight_"))
    assert [name for name, _ in program.named_parameters()] == ["a.weight"]
    assert [name for name, _ in program.named_buffers()] == ["a.weight_"]
    assert registered(program, "forward.weight", torch.ones(1)) == ("forward_", "weight")
