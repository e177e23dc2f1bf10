"""Quantised candidates where the weights, the outputs or the batches are asked for or given otherwise than usual."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.verifier.quantised.quantising import exported, pictures, quantised, quiet, small
from verifier import verify
from verifier.judge.policy import INT8
from verifier.records import Status, Verdict

if TYPE_CHECKING:
    from pathlib import Path


def int8(model: nn.Module, x: Tensor, folder: Path, calibration: Tensor | None = None) -> str:
    """The file of a model in eight bits."""
    floating = exported(model, x, folder / "float.onnx")
    return str(quantised(floating, folder / "int8.onnx", x if calibration is None else calibration))


@pytest.mark.parametrize("right", [True, False])
def test_weights_of_a_file_are_those_that_codes_stand_for(right: bool, tmp_path: Path) -> None:
    trained, x = small(3), pictures()
    file = int8(trained if right else small(4), x, tmp_path)
    save_file({name: t.contiguous() for name, t in trained.state_dict().items()}, tmp_path / "w.safetensors")
    found = verify(small(), file, x, weights=str(tmp_path / "w.safetensors")).quantisation
    assert found is not None
    assert (found.undone is Verdict.MATCH) == right


class Returning(nn.Module):
    """The network, returning scores, scores and shares of some, or classes alone."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.net, self.how = small(), how

    def forward(self, x: Tensor) -> Any:
        """Pictures to what is asked for."""
        scores = self.net(x)
        if self.how == "classes":
            return scores.argmax(1)
        return (scores, scores[:, :4].sigmoid()) if self.how == "two" else scores


@pytest.mark.parametrize(("baseline", "candidate"), [("two", "one"), ("one", "two")])
def test_another_number_of_outputs_is_diverged(baseline: str, candidate: str, tmp_path: Path) -> None:
    x = pictures()
    file = int8(Returning(candidate).eval(), x, tmp_path)
    lenient = msgspec.structs.replace(INT8, kl_mean=1e6, logit_error=1e6)
    found = verify(Returning(baseline).eval(), file, x, policy=lenient)
    assert found.verdict is Verdict.DIVERGED
    assert "tensors, the candidate" in found.reason


def test_outputs_are_paired_by_name(tmp_path: Path) -> None:
    class Named(Returning):
        def forward(self, x: Tensor) -> Any:
            first, second = super().forward(x)
            return {"second": second, "first": first}

    x = pictures()
    file = tmp_path / "float.onnx"
    names = ["first", "second"]
    with quiet():
        torch.onnx.export(
            Returning("two").eval(), (x,), str(file), dynamo=False, input_names=["x"], output_names=names
        )
    found = verify(Named("two").eval(), str(quantised(file, tmp_path / "int8.onnx", x)), x)
    assert all(cell.output is not None and cell.output.top1_agreement is not None for cell in found.cells)


@pytest.mark.parametrize("size", [None, 3])
def test_samples_may_lie_along_another_dimension(size: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 6)).eval()
    x = torch.randn(5, 8, 16)
    axes = {"x": {1: "batch"}}
    with quiet():
        torch.onnx.export(
            model, (x,), str(tmp_path / "float.onnx"), dynamo=False, input_names=["x"], dynamic_axes=axes
        )
    file = quantised(tmp_path / "float.onnx", tmp_path / "int8.onnx", x)
    found = verify(model, str(file), x, batch_dim=1, batch_size=size)
    [shape] = [row.shape for cell in found.cells for row in cell.layers if row.op == "output"]
    assert shape == (5, 8, 6)


def test_classes_that_change_are_the_error(tmp_path: Path) -> None:
    model, x = Returning("classes").eval(), pictures(32)
    file = int8(model, x, tmp_path, x[:1] * 0.05)  # of one faint picture: nearly all is clipped
    session = onnxruntime.InferenceSession(file)
    share = float((torch.from_numpy(session.run(None, {"x": x.numpy()})[0]) != model(x)).double().mean())
    assert share > 0.1
    found = verify(model, file, x, keep_float_budget="5%")
    quantisation = found.quantisation
    assert quantisation is not None
    assert quantisation.measure == "changed"
    assert quantisation.error == pytest.approx(share)
    [cell] = [each for each in found.cells if each.name == "cpu/int8"]
    [row] = [each for each in cell.layers if each.op == "output"]
    assert row.status is not Status.OK
    kept = quantisation.kept
    assert kept is not None
    assert kept.measure == "top-1"
    assert kept.before == pytest.approx(share)
    assert kept.layers
    assert kept.after <= 0.05
