"""Files that are made for one number of samples, given more."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from verifier import InputError, verify
from verifier.records import Verdict

if TYPE_CHECKING:
    from pathlib import Path


class Pooled(nn.Module):
    """Tokens to scores, with the number of samples written into a reshape if `fixed`; (N, 5, 6) to (N, 2)."""

    def __init__(self, *, fixed: bool, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fixed, self.gain = fixed, gain
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to scores."""
        h = torch.relu(self.first(x)) * self.gain
        h = h.reshape(int(x.shape[0]), -1, 4) if self.fixed else h.reshape(-1, 10, 4)
        found: Tensor = self.last(h.reshape(-1, 5, 8).mean(1))
        return found


def exported(model: nn.Module, x: Tensor, path: Path) -> str:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(path), dynamo=False, input_names=["x"])
    return str(path)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize(("made", "count"), [(1, 3), (2, 6)])
def test_so_many_go_through_at_a_time(made: int, count: int, fixed: bool, tmp_path: Path) -> None:
    x = torch.randn(count, 5, 6)
    model = Pooled(fixed=fixed).eval()
    file = exported(model, x[:made], tmp_path / "net.onnx")
    found = verify(model, file, x)
    assert found.verdict is Verdict.MATCH
    assert any(f"made for {made} at a time" in note for note in found.notes)
    assert found.cells[-1].batch_size == count
    found = verify(Pooled(fixed=fixed, gain=1.01).eval(), file, x)
    assert found.verdict is Verdict.DIVERGED


def test_a_number_that_was_asked_for_is_kept_to(tmp_path: Path) -> None:
    x = torch.randn(4, 5, 6)
    model = Pooled(fixed=False).eval()
    file = exported(model, x[:1], tmp_path / "net.onnx")
    assert verify(model, file, x, batch_size=1).verdict is Verdict.MATCH
    with pytest.raises(InputError, match="--batch-size"):
        verify(model, file, x, batch_size=2)


def test_a_file_of_openvino_gets_so_many_at_a_time() -> None:
    openvino = pytest.importorskip("openvino")
    x = torch.randn(3, 5, 6)
    model = Pooled(fixed=False).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        form = openvino.convert_model(model, example_input=x[:1], input=[1, 5, 6])
    found = verify(model, form, x)
    assert found.verdict is Verdict.MATCH, found.reason
    assert any("made for 1 at a time" in note for note in found.notes)


class Running(nn.Module):
    """Sums over all steps before, the first dimension being time; (T, N, 6) to (T, N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Steps to scores."""
        found: Tensor = self.last(torch.relu(self.first(x)).cumsum(0))
        return found


class Centred(nn.Module):
    """Scores without their mean over the samples; (N, 6) to (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers to scores."""
        scores: Tensor = self.last(x)
        return scores - scores.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("model", "made", "shape"),
    [(Running(), 4, (8, 3, 6)), (Centred(), 1, (6, 6)), (Centred(), 2, (6, 6))],
    ids=["time-first", "centred-1", "centred-2"],
)
def test_pieces_are_not_taken_where_the_baseline_gives_other_numbers_for_them(
    model: nn.Module, made: int, shape: tuple[int, ...], tmp_path: Path
) -> None:
    x = torch.randn(shape)
    file = exported(model.eval(), x[:made], tmp_path / "net.onnx")
    refused = rf"of shape \({made}, .*was given .*--batch-size"
    with pytest.raises(InputError, match=refused):
        verify(model, file, x)
    with pytest.raises(InputError, match=refused):
        verify(file, model, x)


def test_pieces_along_another_dimension_are_held_against_it(tmp_path: Path) -> None:
    x = torch.randn(3, 8, 6)
    file = exported(Running().eval(), x[:, :4], tmp_path / "net.onnx")
    found = verify(Running().eval(), file, x, batch_dim=1)
    assert found.verdict is Verdict.MATCH, found.reason
    assert any("made for 4 at a time" in note for note in found.notes)
