"""Codes of causes that a policy names: misspelt ones are found, those nobody has listed are let be."""

from __future__ import annotations

import inspect

import pytest
from torch.nn import functional

from verifier.diagnose.codebook import listed
from verifier.diagnose.codes import of_attribute
from verifier.gate.cause_codes import misspelt


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("batchnorm-epps", "batchnorm-eps"),
        ("batchnrom-eps", "batchnorm-eps"),
        ("batchnorm-epsilon", "batchnorm-eps"),
        ("batchnorm_eps", "batchnorm-eps"),
        ("BatchNorm-eps", "batchnorm-eps"),
        ("conv1d-stride", "conv-stride"),
        ("gelu-mising", "gelu-missing"),  # of a pattern
        ("weight-swaped", "weight-swapped"),
        ("unexplaned", "unexplained"),
    ],
)
def test_a_known_code_that_is_misspelt_is_found(given: str, meant: str) -> None:
    assert misspelt(given) == meant


def test_no_code_that_is_listed_is_taken_for_another() -> None:
    codes = [name for each in listed() for name in (each.code, *each.examples) if name == name.lower()]

    assert [each for each in codes if misspelt(each)] == []


def test_no_setting_of_an_operator_of_torch_is_taken_for_a_mistake() -> None:
    functions = {name: each for name, each in vars(functional).items() if inspect.isfunction(each)}
    codes = {
        of_attribute(name, argument)
        for name, each in functions.items()
        if not name.startswith("_")
        for argument in inspect.signature(each).parameters
    }

    assert len(codes) > 300
    for code in sorted({*codes, "softplus-beta", "my-counter", "ema", "running-std", "selu-missing"}):
        assert misspelt(code) == "", code
