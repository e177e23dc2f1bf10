"""Numbers that a model has written down are stored in single precision, which is no difference of programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from verifier import Verdict, verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
FORMS = ("exported", "decomposed", "onnx", "onnx of TorchScript")


class Net(nn.Module):
    """A layer and what is done with what it gives."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 3)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) to the same shape."""
        return self.then(self.layer(x))


def deployed(model: nn.Module, form: str, path: Path) -> Any:
    """A model in a form."""
    if "onnx" in form:
        torch.onnx.export(model, (X,), path / "net.onnx", dynamo=form == "onnx", verbose=False)
        return str(path / "net.onnx")
    program = torch.export.export(model, (X,))
    return program if form == "exported" else program.run_decompositions()


WRITTEN: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "a tensor": (
        lambda y: y * torch.tensor([0.1, 0.2, 0.3]),
        lambda y: y * torch.tensor([0.1, 0.2, 0.300001]),
    ),
    "a tensor of one number": (lambda y: y + torch.tensor(0.7), lambda y: y + torch.tensor(0.70001)),
    "many of one number": (lambda y: y / torch.full((3,), 0.3), lambda y: y / torch.full((3,), 0.30001)),
    "a number of many digits": (lambda y: y * 0.481454663218, lambda y: y * 0.481455663218),
    "one over a number": (lambda y: y * (1 / 255), lambda y: y * (1 / 256)),
    "a root": (lambda y: y * 24**-0.5, lambda y: y * 23**-0.5),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", WRITTEN)
@pytest.mark.filterwarnings("ignore")  # the exporters warn of much
def test_what_is_written_down_is_the_same_number(what: str, form: str, tmp_path: Path) -> None:
    right, wrong = map(Net, WRITTEN[what])
    assert verify(right, deployed(right, form, tmp_path), X).verdict is Verdict.MATCH
    assert verify(right, deployed(wrong, form, tmp_path), X).verdict is Verdict.DIVERGED
