"""What is shipped against its operators: rounding once more is allowed, a fault of one channel is not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.verifier.quantised.quantising import exported, pictures, quantised, small
from verifier import verify
from verifier.forms.onnx.quantised import QuantisedOnnx
from verifier.quantised.fused import fused
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor


def outputs(seed: int, shape: tuple[int, ...] = (64, 10)) -> tuple[Tensor, Tensor]:
    """What is exact, and what rounding at first leaves of it."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.randn(shape, generator=generator)
    return right, right + 0.02 * torch.randn(shape, generator=generator)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [(1, 1000), (4, 1000), (64, 10), (2, 8, 16, 16)])
def test_as_much_noise_again_is_rounding_once_more(seed: int, shape: tuple[int, ...]) -> None:
    right, plain = outputs(seed, shape)
    again = plain + 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(1000 + seed))
    assert fused([[right]], [[plain]], [[again]]).near


@pytest.mark.parametrize("size", [0.04, 0.09])
def test_a_shift_of_one_channel_is_told(size: float) -> None:
    right, plain = outputs(0)
    shifted = plain.clone()
    shifted[:, 3] += size
    found = fused([[right]], [[plain]], [[shifted]])
    assert (found.near, found.where) == (False, "3 of dimension 1 of output 0")


def test_a_sample_that_is_another_is_told() -> None:
    right, plain = outputs(0)
    other = plain.clone()
    other[5] += 0.1 * torch.randn(10, generator=torch.Generator().manual_seed(3))
    assert fused([[right]], [[plain]], [[other]]).where == "5 of dimension 0 of output 0"


@pytest.mark.parametrize(("shipped", "near"), [([1, 2, 3, 4], True), ([1, 2, 3, 0], True), ([0] * 4, False)])
def test_classes_may_change_as_often_as_by_rounding(shipped: list[int], near: bool) -> None:
    right, plain = torch.tensor([1, 2, 3, 5]), torch.tensor([1, 2, 3, 4])
    found = fused([[right]], [[plain]], [[torch.tensor(shipped)]])
    assert (found.near, found.exact) == (near, shipped == plain.tolist())


def test_no_number_is_not_near() -> None:
    right, plain = outputs(0)
    other = plain.clone()
    other[0, 0] = math.nan
    assert not fused([[right]], [[plain]], [[other]]).near


def test_a_session_that_is_wrong_in_one_channel_is_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = small(), pictures(16)
    file = quantised(exported(model, x, tmp_path / "float.onnx"), tmp_path / "int8.onnx", x)
    right = QuantisedOnnx.keeping

    def keeping(
        self: QuantisedOnnx, layers: Any, weights: Any, show: Any = (), *, shipped: bool = False
    ) -> Callable[..., Any]:
        run = right(self, layers, weights, show, shipped=shipped)

        def faulty(args: Any, kwargs: Any) -> Any:
            found = run(args, kwargs)
            first = found.outputs[0].clone()
            first[:, 3] += 0.09 * first.square().mean().sqrt()
            return found._replace(outputs=(first,))

        return faulty if shipped and not layers else run

    monkeypatch.setattr(QuantisedOnnx, "keeping", keeping)
    found = verify(model, str(file), x)
    assert [stage.verdict for stage in found.stages] == [Verdict.DIVERGED]
    assert found.first_divergence is not None
    assert found.first_divergence.stage == "fusion"
    [cell] = [each for each in found.cells if each.name == "cpu/int8"]
    assert cell.reason.endswith("more than rounding once more, in 3 of dimension 1 of output 0")
