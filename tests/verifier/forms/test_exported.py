"""Exported programs: what torch.export has lifted, and what it cannot decompose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from verifier import Verdict, verify
from verifier.forms import exported

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


class Lifting(nn.Module):
    """A layer, and a tensor that its Python writes down."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) to the same shape."""
        made: Tensor = self.layer(x) * torch.tensor([1.0, 2.0, 3.0])
        return made


def test_what_is_lifted_is_a_buffer_of_the_program() -> None:
    form = exported.of(torch.export.export(Lifting(), (X,)))
    assert [name for name, _ in form.program.named_buffers()] == ["lifted_tensor_0"]
    assert torch.equal(form.program(X), Lifting()(X))


def test_a_saved_program_is_the_one_that_was_exported(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Lifting(), (X,)), tmp_path / "net.pt2")
    found = verify(Lifting(), str(tmp_path / "net.pt2"), X)
    assert found.verdict is Verdict.MATCH
    assert [(each.name, each.exact) for each in found.stages] == [("run_decompositions", True)]


def test_a_program_that_cannot_be_decomposed_is_compared_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    program = torch.export.export(Lifting(), (X,))

    def failing(*_: object) -> None:
        raise ValueError("cannot view a tensor")

    monkeypatch.setattr(type(program), "run_decompositions", failing)
    found = verify(Lifting(), program, X)
    assert found.verdict is Verdict.MATCH
    assert not found.stages
    assert any(
        "fails on the exported program: ValueError: cannot view a tensor" in note for note in found.notes
    )
