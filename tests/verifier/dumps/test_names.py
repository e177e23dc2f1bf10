"""Paths in the names of dumped tensors, however they are spelt."""

from __future__ import annotations

import pytest

from verifier.dumps.names import leaf, of_output, of_parameter, owner


@pytest.mark.parametrize(
    "name", ["params/a.bn/bias", "params__a.bn__bias", "params__a__bn__bias", "a.bn.bias", "a:bn:bias"]
)
def test_a_parameters_path_is_read_whatever_separates_its_parts(name: str) -> None:
    assert (owner(name), leaf(name), of_parameter(name)) == (("a", "bn"), "bias", True)


def test_what_begins_with_underscores_is_one_name() -> None:
    assert of_output("__call__")
    assert of_output("intermediates/__call__")
    assert leaf("conv/__call__") == "__call__"
