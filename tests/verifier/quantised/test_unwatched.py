"""Quantised models where nothing tells their rounding apart: they are compared as they are, or refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.verifier.quantised.quantising import exported, pictures, quantised, small
from tests.verifier.quantised.test_torch import CONFIGS, Perceptron, by_pt2e, by_torchao
from verifier import CannotRunError, UsageError, record, verify
from verifier.records import Verdict

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = "a limit of the verifier"


@pytest.fixture
def features() -> Tensor:
    return torch.randn(8, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def rounding() -> nn.Module:
    torch.manual_seed(0)
    return by_torchao(Perceptron().eval(), CONFIGS[1])


@pytest.fixture
def flat(rounding: nn.Module) -> nn.Module:
    """A float model whose weights are what the codes of `rounding` stand for."""
    model = Perceptron().eval()
    state = rounding.state_dict()
    model.load_state_dict(
        {name: each.dequantize() if hasattr(each, "qdata") else each for name, each in state.items()}
    )
    return model


@pytest.fixture
def int8(tmp_path: Path) -> str:
    floating = exported(small(), pictures(), tmp_path / "float.onnx")
    return str(quantised(floating, tmp_path / "int8.onnx", pictures(32, seed=5)))


def test_a_module_of_torchao_is_refused_beside_a_certificate(
    flat: nn.Module, rounding: nn.Module, features: Tensor, tmp_path: Path
) -> None:
    certificate = record(flat, features)
    file = tmp_path / "net.cert.safetensors"
    certificate.save(file)
    for baseline in (certificate, str(file)):
        with pytest.raises(CannotRunError, match=LIMIT):
            verify(baseline, rounding, features)


def test_a_module_of_torchao_is_refused_beside_dumped_tensors(
    flat: nn.Module, rounding: nn.Module, features: Tensor, tmp_path: Path
) -> None:
    with torch.no_grad():
        np.save(tmp_path / "output.npy", flat(features).numpy())
    with pytest.raises(CannotRunError, match=LIMIT):
        verify(f"{tmp_path}/", rounding, features)


def test_a_module_of_torchao_is_not_recorded(rounding: nn.Module, features: Tensor) -> None:
    with pytest.raises(CannotRunError, match=LIMIT):
        record(rounding, features)


def test_a_module_of_torchao_is_refused_beside_a_quantised_baseline(
    flat: nn.Module, rounding: nn.Module, features: Tensor
) -> None:
    with pytest.raises(CannotRunError, match=LIMIT):
        verify(by_pt2e(flat, features), rounding, features)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_graph_of_pt2e_is_compared_with_a_recording_as_it_is(
    dynamic: bool, flat: nn.Module, features: Tensor
) -> None:
    rounding = by_pt2e(flat, features, dynamic=dynamic)
    kept = record(rounding, features)
    assert verify(kept, rounding, features).verdict is Verdict.MATCH
    assert verify(kept, flat, features).verdict is Verdict.DIVERGED


def test_a_program_for_one_number_of_samples_is_refused_as_a_limit_of_ours(
    flat: nn.Module, features: Tensor
) -> None:
    for candidate in (by_pt2e(flat, features), torch.export.export(flat, (features,))):
        with pytest.raises(CannotRunError, match=f"takes 8 alone. This is {LIMIT}"):
            verify(record(flat, features), candidate, features)


def test_a_quantised_onnx_model_is_compared_as_it_is(int8: str) -> None:
    x = pictures()
    assert verify(record(small(), x), int8, x).verdict is Verdict.DIVERGED
    kept = record(int8, x)
    assert verify(kept, int8, x).verdict is Verdict.MATCH
    assert verify(kept, small(), x).verdict is Verdict.DIVERGED


def test_a_budget_is_refused_where_both_are_quantised(int8: str) -> None:
    with pytest.raises(UsageError, match="both are quantised"):
        verify(int8, int8, pictures(), keep_float_budget="0.1%")


def test_a_budget_with_the_models_exchanged_is_told_as_such(int8: str) -> None:
    with pytest.raises(UsageError, match="seem exchanged"):
        verify(int8, small(), pictures(), keep_float_budget="0.1%")


@pytest.mark.parametrize("budget", ["0.1%", "nonsense"])
def test_a_budget_is_refused_beside_a_certificate(budget: str, int8: str) -> None:
    with pytest.raises(UsageError, match="--keep-float-budget needs a live baseline"):
        verify(record(small(), pictures()), int8, pictures(), keep_float_budget=budget)
