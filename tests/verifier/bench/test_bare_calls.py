from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.attempts.nets import Net, inputs
from verifier import ModelError, Verdict, verify


class Counting(Net):
    """Multiplies by one more hundredth with every call."""

    def forward(self, x: Tensor) -> Any:
        self.calls = getattr(self, "calls", -1) + 1
        return super().forward(x) * (1 + 0.01 * self.calls)


class Seldom(Net):
    """Draws random numbers, as a network in training mode does."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * torch.rand(1).to(x.dtype)


def test_a_model_that_keeps_nothing_leaves_no_row_and_no_note() -> None:
    found = verify(Net(), Net(), inputs())
    assert found.verdict is Verdict.MATCH
    assert found.notes == ()
    assert not any(row.kind == "call" for cell in found.cells for row in cell.layers)


def test_a_second_call_is_judged_where_the_first_was() -> None:
    found = verify(Net(), Counting(), inputs())
    (culprit,) = found.culprits
    assert (culprit.baseline, culprit.kind, str(culprit.status)) == ("output, second call", "call", "culprit")
    assert culprit.total is not None
    assert culprit.total.nrmse == pytest.approx(0.01, rel=1e-5)
    assert culprit.cause is not None
    assert (culprit.cause.code, culprit.cause.confirmed) == ("state-across-calls", True)
    (row,) = culprit.above
    assert found.layers[row].baseline == "output"
    assert "first at mul" in found.notes[0]


def test_state_that_both_keep_alike_is_a_match_that_is_told() -> None:
    found = verify(Counting(), Counting(), inputs())
    assert found.verdict is Verdict.MATCH
    assert [note.split(" keeps")[0] for note in found.notes] == ["the baseline", "the candidate"]


@pytest.mark.parametrize("cells", [("cpu/float64",), ("cpu/float32",), ("cpu/bfloat16", "cpu/float32")])
def test_every_set_of_cells_sees_it(cells: tuple[str, ...]) -> None:
    assert verify(Net(), Counting(), inputs(), cells=cells).verdict is Verdict.DIVERGED


def test_random_numbers_are_drawn_anew_in_every_call() -> None:
    found = verify(Seldom(), Seldom(), inputs())
    assert (found.verdict, found.notes) == (Verdict.MATCH, ())


def test_a_batch_norm_in_training_mode_keeps_only_its_statistics() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).train()
    found = verify(net, net, inputs())
    assert (found.verdict, found.notes) == (Verdict.MATCH, ())


def test_a_model_that_fails_when_nothing_watches_it_cannot_be_run() -> None:
    class Shy(Net):
        def forward(self, x: Tensor) -> Any:
            if not self.first._forward_hooks:
                raise ValueError("nobody is there")
            return super().forward(x)

    with pytest.raises(ModelError, match=r"the candidate .* takes: ValueError: nobody is there"):
        verify(Net(), Shy(), inputs())


def test_a_state_beside_an_error_only_carries() -> None:
    class Wrong(Counting):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) * 2

    found = verify(Net(), Wrong(), inputs())
    numerics = found.cells[1]
    second = [row for row in numerics.layers if row.kind == "call"]
    assert [str(row.status) for row in second] == ["carries"]


class _Referring(Net):
    """Takes a number of the batch's first sample from all, where no operator shows which sample it was."""

    def chosen(self, x: Tensor) -> int:
        return 0

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) - float(x[:, 0].detach().numpy()[self.chosen(x)])


class _ReferringToTheLargest(_Referring):
    def chosen(self, x: Tensor) -> int:
        return int(x[:, 0].detach().numpy().argmax())


@pytest.mark.parametrize("cells", [("cpu/float64",), ("cpu/float32",), ("cpu/bfloat16", "cpu/float32")])
def test_an_order_that_only_the_baseline_minds_is_seen(cells: tuple[str, ...]) -> None:
    x = inputs()
    x = x[x[:, 0].argsort(descending=True)]  # the largest is the first
    found = verify(_Referring(), _ReferringToTheLargest(), x, cells=cells)
    assert found.verdict is Verdict.DIVERGED


class _Remembering(Net):
    """Gives again what it gave for inputs of the same sum, in whatever order they came."""

    def forward(self, x: Tensor) -> Any:
        known = self.__dict__.setdefault("known", {})
        return known.setdefault(round(float(x.double().sum()), 4), super().forward(x))


def test_what_is_remembered_by_what_no_order_changes_is_seen() -> None:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
    assert verify(Net(), _Remembering(), x).verdict is Verdict.DIVERGED


def test_other_bits_of_a_fused_way_are_not_called_chance() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()  # fused where nothing watches it
    found = verify(layer, copy.deepcopy(layer), torch.randn(2, 5, 16), weights="as-is")
    assert found.verdict == "match"
    assert any("gives other bits when nothing watches it" in note for note in found.notes)
    assert not any("every time" in note for note in found.notes)


class _ReturningItsWorkspace(Net):
    """Returns memory that every such model writes its answer into, as engines do that share one workspace."""

    factor = 1.0

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return torch.mul(y, self.factor, out=_WORKSPACE.setdefault((y.shape, y.dtype), torch.empty_like(y)))


class _Doubled(_ReturningItsWorkspace):
    factor = 2.0


_WORKSPACE: dict[object, Tensor] = {}


def test_models_that_return_one_memory_are_told_apart() -> None:
    assert verify(_ReturningItsWorkspace(), _ReturningItsWorkspace(), inputs()).verdict is Verdict.MATCH
    assert verify(_ReturningItsWorkspace(), _Doubled(), inputs()).verdict is Verdict.DIVERGED


def test_calls_that_differ_beside_a_fault_are_told_in_float64_alone() -> None:
    class Wrong(Counting):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) * 1.01

    assert verify(Counting(), Wrong(), inputs(), cells=("cpu/float64",)).verdict is Verdict.DIVERGED
