"""Exported programs: what torch.export has lifted, and what it cannot decompose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from verifier import Verdict, verify
from verifier.forms import exported

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.forms.form import Form

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


class Stacked(nn.Module):
    """Two recurrent layers that read their steps in both directions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, 3) to (N, 2)."""
        made: Tensor = self.fc(self.rnn(x)[0][:, -1])
        return made


@pytest.mark.filterwarnings("ignore:The tensor attributes.*_flat_weights:UserWarning")
def test_recurrent_layers_are_compared_with_what_they_are_decomposed_into() -> None:
    model, x = Stacked().eval(), X.reshape(2, 1, 3).repeat(1, 3, 1)
    program = torch.export.export(model, (x,)).run_decompositions()
    found = verify(model, program, x)
    assert found.verdict is Verdict.MATCH
    assert [row.op for row in found.layers if row.baseline and row.candidate] == ["lstm", "getitem", "linear"]
    program.state_dict["rnn.weight_hh_l0_reverse"] = program.state_dict["rnn.weight_hh_l0"]
    culprit = verify(model, program, x).culprits[0]
    assert (culprit.between_baseline, culprit.baseline) == (("rnn", "getitem"), "fc")


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


class Several(nn.Module):
    """Operators that become one core operator, and some that become several."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 8)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) to (N, 2)."""
        one, two = torch.tanh(self.norm(self.layer(x))).chunk(2, 1)
        return nn.functional.silu(one + two).sum(1, keepdim=True)


def decomposed(path: Path, change: str = "") -> Form:
    """The form of a program that was saved, with one of its core operators replaced by `sin` where that is asked."""
    torch.export.save(torch.export.export(Several().eval(), (X,)), path)
    form = exported.read(path)
    (stage,) = form.stages
    if change:
        graph = stage._module.graph  # type: ignore[attr-defined]
        (node,) = graph.find_nodes(op="call_function", target=getattr(torch.ops.aten, change).default)
        node.target = torch.ops.aten.sin.default
        stage._module.recompile()  # type: ignore[attr-defined]
    return form


@pytest.mark.parametrize(("change", "site", "operator"), [
    ("tanh", "tanh", "sin"),
    ("sigmoid", "silu", "sin + mul"),
])  # fmt: skip
def test_a_decomposition_that_computes_something_else_is_found_at_its_site(
    tmp_path: Path, change: str, site: str, operator: str
) -> None:
    found = verify(Several().eval(), decomposed(tmp_path / "net.pt2", change), X)
    assert found.verdict is Verdict.DIVERGED
    (stage,) = found.stages
    assert (stage.verdict, stage.site, stage.operator) == (Verdict.DIVERGED, site, operator)


def test_what_each_operator_has_become_is_told(tmp_path: Path) -> None:
    found = verify(Several().eval(), decomposed(tmp_path / "net.pt2"), X)
    (stage,) = found.stages
    assert [(kernel.sites, kernel.operator) for kernel in stage.kernels] == [
        (("layer",), "permute + addmm"),
        (("norm",), "_native_batch_norm_legit_no_training + getitem"),
        (("tanh",), "tanh"),
        (("chunk", "chunk[1]"), "split_with_sizes + getitem + getitem"),
        (("add",), "add"),
        (("silu",), "sigmoid + mul"),
        (("sum",), "sum"),
    ]
