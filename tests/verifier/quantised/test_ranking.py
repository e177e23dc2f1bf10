"""What a layer costs is what onnxruntime gives where that node is excluded; so is the set that is kept in float."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime
import pytest
import torch
import torchvision
from scipy.stats import spearmanr
from torch import Tensor, nn

from tests.verifier.quantised.quantising import exported, pictures, quantised, small
from verifier import UsageError, verify
from verifier.records import KeptInFloat, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from verifier.records import Quantisation


def run(file: Path, x: Tensor) -> Tensor:
    """What onnxruntime gives, as it is unless told otherwise."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def error(given: Tensor, right: Tensor) -> float:
    """The relative error (NRMSE)."""
    return float((given - right).norm() / right.norm())


def power_saved(
    floating: Path, to: Path, calibration: Tensor, x: Tensor, right: Tensor, excluded: Sequence[str]
) -> float:
    """The mean square of the error of the model that is quantised without some nodes."""
    return error(run(quantised(floating, to, calibration, nodes_to_exclude=[*excluded]), x), right) ** 2


def agrees(
    model: nn.Module, x: Tensor, calibration: Tensor, folder: Path, budget: str
) -> tuple[float, Quantisation]:
    """The rank correlation with excluding node after node, and what was found; the kept set is built and run."""
    floating = exported(model, x, folder / "float.onnx")
    file = quantised(floating, folder / "int8.onnx", calibration)
    found = verify(model, str(file), x, keep_float_budget=budget).quantisation
    assert found is not None
    assert found.undone is Verdict.MATCH
    assert found.faults == ()
    with torch.no_grad():
        right = model(x)
    costs = [
        power_saved(floating, folder / "one.onnx", calibration, x, right, [layer.name])
        for layer in found.layers
    ]
    kept = found.kept
    assert kept is not None
    built = quantised(floating, folder / "kept.onnx", calibration, nodes_to_exclude=[*kept.layers])
    given = run(built, x)
    value = error(given, right)
    if kept.measure == "top-1":
        value = float((given.argmax(1) != right.argmax(1)).double().mean())
    assert value <= kept.limit
    assert kept.met
    return float(spearmanr([-layer.saves for layer in found.layers], costs).statistic), found


def test_the_ranking_is_that_of_excluding_one_node_after_the_other(tmp_path: Path) -> None:
    rank, found = agrees(small(), pictures(), pictures(32, seed=5), tmp_path, "error=0.25%")
    assert rank >= 0.9
    assert found.kept is not None
    assert found.kept.before > 0.0025 >= found.kept.after
    assert 0 < len(found.kept.layers) < len(found.layers)


@pytest.mark.parametrize("budget", ["error=0.1%", "error=0.2%", "error=0.4%"])
def test_no_layer_of_the_kept_set_can_be_left_out(budget: str, tmp_path: Path) -> None:
    model, x, calibration = small(), pictures(), pictures(32, seed=5)
    floating = exported(model, x, tmp_path / "float.onnx")
    file = quantised(floating, tmp_path / "int8.onnx", calibration)
    found = verify(model, str(file), x, keep_float_budget=budget).quantisation
    assert found is not None
    assert found.kept is not None
    with torch.no_grad():
        right = model(x)
    for left_out in found.kept.layers:
        fewer = [name for name in found.kept.layers if name != left_out]
        built = quantised(floating, tmp_path / "fewer.onnx", calibration, nodes_to_exclude=fewer)
        assert error(run(built, x), right) > 0.9 * found.kept.limit


def test_what_already_meets_the_budget_keeps_nothing_in_float(tmp_path: Path) -> None:
    floating = exported(small(), pictures(), tmp_path / "float.onnx")
    file = quantised(floating, tmp_path / "int8.onnx", pictures(32, seed=5))
    found = verify(small(), str(file), pictures(), keep_float_budget="error=50%").quantisation
    assert found is not None
    assert found.kept is not None
    assert (found.kept.layers, found.kept.met) == ((), True)


@pytest.mark.parametrize("budget", ["", "many", "-1%", "200%", "speed=1%", "1..2%"])
def test_a_budget_that_is_none_is_a_usage_error(budget: str) -> None:
    with pytest.raises(UsageError, match="give a share such as"):
        verify(small(), small(), pictures(), keep_float_budget=budget)


def test_a_budget_beside_a_float_candidate_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="for a quantised candidate"):
        verify(small(), small(), pictures(), keep_float_budget="1%")


def test_a_share_below_one_sample_is_told_as_such() -> None:
    kept = KeptInFloat(
        asked="0.1%",
        measure="top-1",
        limit=0.001,
        before=0.125,
        after=0.0,
        layers=("a",),
        exclusion="nodes_to_exclude",
        samples=8,
        runs=3,
    )
    assert "less than one" in kept.doubt
    assert kept.met


@pytest.mark.thorough
def test_the_ranking_of_a_resnet_is_that_of_excluding_one_node_after_the_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None
    generator = torch.Generator().manual_seed(0)
    x, calibration = (torch.randn(8, 3, 64, 64, generator=generator) for _ in range(2))
    with torch.no_grad():
        model(calibration)  # the statistics that its norms keep
    rank, found = agrees(model.eval(), x, calibration, tmp_path, "error=8%")
    assert rank >= 0.9
    assert found.kept is not None
    assert found.kept.before > 0.08 >= found.kept.after
    assert 0 < len(found.kept.layers) < len(found.layers)
