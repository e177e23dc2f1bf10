"""What one cell's runs have shown is kept, whatever happens to the cell."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from verifier import Verdict, verify
from verifier.errors import ModelError
from verifier.judge import CRITERIA


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)


class Plain(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))  # type: ignore[no-any-return]


class Tagged(Net):
    def forward(self, x: Tensor) -> dict[str, object]:
        return {"y": self.first(x), "tag": self.tag(x)}

    def tag(self, _: Tensor) -> str:
        return "t0"


class TaggedOtherwiseAndFailing(Tagged):
    """Says another word from its second call on, and has no kernel for many samples in half."""

    called = False

    def tag(self, x: Tensor) -> str:
        if x.dtype == torch.bfloat16 and len(x) > 2:
            raise RuntimeError("no kernel for so many")
        before, self.called = self.called, True
        return "t1" if before else "t0"


def test_what_calls_have_shown_is_told_though_the_cell_cannot_run() -> None:
    x = torch.randn(4, 4)
    result = verify(Tagged(), TaggedOtherwiseAndFailing(), x, cells=("cpu/bfloat16",))
    assert [cell.verdict for cell in result.cells][-1] is Verdict.SKIPPED
    assert result.verdict is Verdict.DIVERGED
    assert "'t1' at tag" in result.reason


WORKSPACE: dict[object, Tensor] = {}


class WrongInAWorkspace(Net):
    """Wrong in the middle; its answer lies where its next call writes, as in inference engines."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.relu(self.first(x) * 1.0065))
        out = WORKSPACE.setdefault((y.shape, y.dtype), torch.empty_like(y))
        return out.copy_(y)


def test_outputs_are_read_before_a_model_runs_again() -> None:
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    result = verify(Plain(), WrongInAWorkspace(), x, policy=CRITERIA)
    assert result.output is not None
    with torch.no_grad():
        given, wrong = Plain()(x), WrongInAWorkspace()(x)
    assert math.isclose(result.output.mse or 0, float((given - wrong).double().square().mean()), rel_tol=1e-4)
    assert result.verdict is Verdict.DIVERGED


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))  # type: ignore[no-any-return]


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 8)
        self.second = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        y = self.second(torch.relu(self.first(x.permute(0, 2, 3, 1))))
        return y.permute(0, 3, 1, 2)  # type: ignore[no-any-return]


@pytest.mark.parametrize("semantics", [True, False])
def test_pairs_that_cannot_be_proved_are_not_taken_for_proved(*, semantics: bool) -> None:
    with pytest.raises(ModelError, match="the candidate failed at permute"):
        verify(Convolutions(), Products(), torch.randn(2, 3, 5, 5), semantics=semantics)
