"""Quantised candidates where the weights, the outputs or the batches are asked for or given otherwise than usual."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from safetensors.torch import save_file

from tests.verifier.quantised.quantising import exported, pictures, quantised, small
from verifier import verify
from verifier.records import Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


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
