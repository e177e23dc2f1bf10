"""Sane quantisers of every kind: nothing but quantisation, and no quantiser is blamed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationMethod, QuantType

from tests.verifier.quantised.quantising import (
    Attending,
    Bounded,
    drawn,
    exported,
    pictures,
    quantised,
    small,
)
from verifier import verify
from verifier.judge import STRICT, Policy, judge_again
from verifier.records import Status, Verdict
from verifier.records.soundness import contradictions

if TYPE_CHECKING:
    from pathlib import Path

SIGNED = {"activation_type": QuantType.QInt8, "extra_options": {"ActivationSymmetric": True}}
KINDS: dict[str, dict[str, Any]] = {
    "min and max": {},
    "per channel": {"per_channel": True},
    "entropy": {"calibrate_method": CalibrationMethod.Entropy},
    "percentile": {"calibrate_method": CalibrationMethod.Percentile},
    "signed": SIGNED,
    "signed, entropy, per channel": {
        **SIGNED,
        "calibrate_method": CalibrationMethod.Entropy,
        "per_channel": True,
    },
    "signed, percentile": {**SIGNED, "calibrate_method": CalibrationMethod.Percentile},
    "seven bits": {"reduce_range": True},
    "weights without sign": {"weight_type": QuantType.QUInt8},
    "weights around another zero": {
        "weight_type": QuantType.QUInt8,
        "extra_options": {"WeightSymmetric": False},
    },
    "without the linear layers": {"op_types_to_quantize": ["Conv", "Add"]},
    "weights that are rounded as it runs": {"extra_options": {"AddQDQPairToWeight": True}},
    "rounded for each reader": {"extra_options": {"DedicatedQDQPair": True}},
    "weights alone": {"op_types_to_quantize": ["MatMul", "Gemm"]},
    "sixteen bits": {"activation_type": QuantType.QUInt16, "weight_type": QuantType.QInt8},
}


@pytest.fixture(scope="module")
def floating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(small(), pictures(), tmp_path_factory.mktemp("float") / "net.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_quantisation_is_told(kind: str, floating: Path, tmp_path: Path) -> None:
    file = quantised(floating, tmp_path / "net.onnx", pictures(32, seed=5), **KINDS[kind])
    found = verify(small(), str(file), pictures())
    assert found.quantisation is not None
    assert found.quantisation.undone is Verdict.MATCH
    assert found.quantisation.faults == ()
    assert found.verdict is Verdict.DIVERGED
    assert {row.stage for row in found.culprits} == {"quantisation"}
    assert all(row.status is not Status.CULPRIT for cell in found.cells[::2] for row in cell.layers)
    assert found.quantisation.layers[0].sqnr_db > 30


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_calibration_on_other_data_is_no_fault(factor: float, floating: Path, tmp_path: Path) -> None:
    file = quantised(floating, tmp_path / "net.onnx", pictures(64, seed=7) * factor)
    found = verify(small(), str(file), pictures())
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())


def test_a_block_of_attention_is_nothing_but_quantised(tmp_path: Path) -> None:
    model, (x, calibration) = drawn(Attending()), torch.randn(2, 16, 12, 32)
    file = quantised(exported(model, x, tmp_path / "float.onnx"), tmp_path / "net.onnx", calibration)
    found = verify(model, str(file), x)
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())
    assert {row.stage for row in found.culprits} == {"quantisation"}


def test_an_activation_that_rounding_stands_for_is_found_with_both_of_its_ends(tmp_path: Path) -> None:
    model, (x, calibration) = drawn(Bounded(), 8), torch.randn(2, 16, 3, 16, 16)
    file = quantised(exported(model, x, tmp_path / "float.onnx"), tmp_path / "net.onnx", calibration)
    assert not any(node.op_type in ("Clip", "Relu") for node in onnx.load(file).graph.node)
    with torch.no_grad():
        assert float(model.get_submodule("bn1")(model.get_submodule("conv1")(x)).max()) > 6
    found = verify(model, str(file), x)
    assert found.quantisation is not None
    assert (found.quantisation.undone, found.quantisation.faults) == (Verdict.MATCH, ())


def test_a_saved_result_is_judged_again_without_the_model(floating: Path, tmp_path: Path) -> None:
    file = quantised(floating, tmp_path / "net.onnx", pictures(32, seed=5))
    found = verify(small(), str(file), pictures())
    assert judge_again(found, STRICT).cells == found.cells
    lenient = Policy(name="lenient", task_decides=True, top1_agreement=0.8, kl_mean=0.5, logit_error=5.0)
    assert judge_again(found, lenient).verdict is Verdict.MATCH
    assert [*contradictions(found)] == []


def test_a_task_policy_judges_what_becomes_of_the_classes(floating: Path, tmp_path: Path) -> None:
    file = quantised(floating, tmp_path / "net.onnx", pictures(32, seed=5))
    lenient = Policy(name="lenient", task_decides=True, top1_agreement=0.8, kl_mean=0.5, logit_error=5.0)
    found = verify(small(), str(file), pictures(), policy=lenient)
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    assert {each.cell for each in found.criteria if each.cell} >= {"cpu/int8"}
