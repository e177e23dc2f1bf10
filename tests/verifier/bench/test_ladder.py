"""A form is run at each of its stages as it is; the first site that one changes is named."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from verifier import record, verify
from verifier.errors import UsageError
from verifier.forms.form import Form
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from verifier.graph import Graph


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


class Run:
    """A stage that runs a network, in double precision and rounded once, and shows what its layers give."""

    def __init__(self, name: str, network: nn.Sequential) -> None:
        self.name = name
        self._network = copy.deepcopy(network).double()

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        made: Tensor = self._network(args[0].double())
        return made.float()

    def values(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], graph: Graph
    ) -> Iterator[tuple[int, str, Tensor]]:
        x = args[0].double()
        for layer, site in zip(self._network, graph.comparable, strict=True):
            x = layer(x)
            yield site.index, f"fused {site.op}", x.float()


def test_what_is_shipped_only_rounds_and_what_is_below_it_need_not_run() -> None:
    model, x = network(), torch.randn(5, 6)
    wrong = copy.deepcopy(model)
    wrong[3] = nn.Softsign()
    found = verify(model, Form("a form", copy.deepcopy(model), (Run("low", wrong), Run("high", model))), x)
    assert (found.verdict, found.reason) == (Verdict.MATCH, "")
    assert [(each.name, each.verdict, each.exact) for each in found.stages] == [
        ("high", Verdict.MATCH, False)
    ]


def test_the_first_of_the_stages_that_depart_is_named() -> None:
    model, x = network(), torch.randn(5, 6)
    wrong = copy.deepcopy(model)
    wrong[3] = nn.Softsign()
    stages = Run("low", model), Run("middle", wrong), Run("high", wrong)
    found = verify(model, Form("a form", copy.deepcopy(model), stages), x)
    assert [(each.name, each.verdict, each.site) for each in found.stages] == [
        ("low", Verdict.MATCH, ""),
        ("middle", Verdict.DIVERGED, "3"),
    ]


def test_a_stage_below_one_in_a_narrower_dtype_is_run_all_the_same() -> None:
    model, x = network(), torch.randn(5, 6)
    near = copy.deepcopy(model)
    with torch.no_grad():
        near.get_parameter("4.bias").add_(1e-4)
    form = Form(
        "a form", copy.deepcopy(model), (Run("low", near), Run("high", model)), lowered={"high": "bfloat16"}
    )
    found = verify(model, form, x)
    assert [(each.name, each.verdict) for each in found.stages] == [("low", Verdict.DIVERGED)]


def test_a_stage_that_changes_an_operator_is_told_with_it() -> None:
    model, x = network(), torch.randn(5, 6)
    wrong = copy.deepcopy(model)
    wrong[3] = nn.Softsign()
    form = Form("a form", copy.deepcopy(model), (Run("low", model), Run("high", wrong)))
    found = verify(model, form, x)
    assert found.verdict is Verdict.DIVERGED
    (culprit,) = found.culprits
    assert culprit.stage == "fusion"
    assert culprit.cause is not None
    assert (culprit.cause.code, culprit.cause.remedy) == ("optimised-form", "run it as low")
    assert [(each.name, each.site, each.operator) for each in found.stages] == [
        ("low", "", ""),
        ("high", "3", "fused tanh"),
    ]


class Silent(Run):
    """A stage that shows none of what it has inside, or as much as agrees with its program."""

    def __init__(self, network: nn.Sequential, shown: nn.Sequential | None = None) -> None:
        super().__init__("high", network)
        self._shown = shown

    def values(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], graph: Graph
    ) -> Iterator[tuple[int, str, Tensor]]:
        if self._shown is not None:
            yield from Run("", self._shown).values(args, kwargs, graph)


def test_why_no_site_of_a_stage_is_named_is_told() -> None:
    model, x = network(), torch.randn(5, 6)
    wrong = copy.deepcopy(model)
    wrong[3] = nn.Softsign()
    for stage, why in (
        (Silent(wrong), "not found: it shows nothing of its inside"),
        (Silent(wrong, model), "not found: none of the 5 values that it shows inside differs"),
    ):
        (told,) = verify(model, Form("a form", copy.deepcopy(model), (stage,)), x).stages
        assert (told.verdict, told.site, told.unplaced) == (Verdict.DIVERGED, "", why)


def test_what_the_graph_says_is_told_from_what_a_stage_does() -> None:
    model, x = network(), torch.randn(5, 6)
    wrong = copy.deepcopy(model)
    wrong[1] = nn.GELU()
    found = verify(model, Form("a form", wrong, (Run("low", wrong),)), x)
    assert [(row.candidate, row.stage) for row in found.culprits] == [("1", "translation")]
    assert [each.verdict for each in found.stages] == [Verdict.MATCH]


def test_drawn_weights_are_refused_for_a_form_that_has_its_own() -> None:
    model = network()
    form = Form("a form", copy.deepcopy(model))
    with pytest.raises(UsageError, match="which has weights of its own, and cannot be given calibrated ones"):
        verify(model, form, torch.randn(2, 6), weights="calibrated")


def test_cells_in_which_a_form_does_not_compute_are_skipped() -> None:
    model, x = network(), torch.randn(5, 6)
    form = Form("a form", copy.deepcopy(model), dtypes=frozenset({"float32"}))
    found = verify(model, form, x, cells=["cpu/float32", "cpu/bfloat16"])
    assert [(cell.name, cell.verdict.value) for cell in found.cells] == [
        ("cpu/float64", "match"),
        ("cpu/float32", "match"),
        ("cpu/bfloat16", "skipped"),
    ]


class Narrow(Run):
    """A stage whose values are rounded to bfloat16."""

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        return super().run(args, kwargs).bfloat16().float()


@pytest.mark.parametrize("dtype", ["bfloat16", None])
def test_a_stage_in_a_narrower_dtype_is_judged_by_its_rounding(dtype: str | None) -> None:
    model, x = network(), torch.randn(5, 6)
    lowered = {} if dtype is None else {"low": dtype}
    found = verify(model, Form("a form", copy.deepcopy(model), (Narrow("low", model),), lowered=lowered), x)
    (stage,) = found.stages
    assert (stage.verdict, stage.cell) == (
        (Verdict.DIVERGED, "") if dtype is None else (Verdict.MATCH, "cpu/bfloat16")
    )
    assert found.verdict is stage.verdict


def test_what_its_rounding_does_not_explain_is_told() -> None:
    model, x = network(), torch.randn(5, 6)
    wrong = copy.deepcopy(model)
    wrong[3] = nn.Softsign()
    form = Form("a form", copy.deepcopy(model), (Narrow("low", wrong),), lowered={"low": "bfloat16"})
    (stage,) = verify(model, form, x).stages
    assert (stage.verdict, stage.site, stage.operator) == (Verdict.DIVERGED, "3", "fused tanh")


class OtherKind(Run):
    """A stage that returns whole numbers as floating-point ones."""

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        return super().run(args, kwargs).argmax(-1).float()


class Choosing(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        chosen: Tensor = x.argmax(-1)
        return chosen


def test_a_stage_that_returns_another_dtype_is_told() -> None:
    model, x = network(), torch.randn(5, 6)
    choosing = Choosing(*model).eval()
    found = verify(choosing, Form("a form", copy.deepcopy(choosing), (OtherKind("low", model),)), x)
    assert found.verdict is Verdict.DIVERGED
    assert [each.verdict for each in found.stages] == [Verdict.DIVERGED]
    assert [row.stage for row in found.culprits] == ["fusion"]


class Empty(Run):
    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return ()


def test_a_stage_that_returns_nothing_is_told() -> None:
    model, x = network(), torch.randn(5, 6)
    found = verify(model, Form("a form", copy.deepcopy(model), (Empty("low", model),)), x)
    assert found.verdict is Verdict.DIVERGED


def test_a_weights_file_is_not_given_to_a_form_in_the_baselines_place(tmp_path: Path) -> None:
    model, x = network(), torch.randn(5, 6)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    form = Form("a form", copy.deepcopy(model))
    with pytest.raises(UsageError, match="a weights file is for the baseline"):
        verify(form, model, x, weights=str(tmp_path / "weights.pt"))


def test_a_certificate_gives_a_form_no_weights_of_its_own() -> None:
    model, x = network(), torch.randn(5, 6)
    certificate = record(model, x, weights="calibrated")
    with pytest.raises(UsageError, match="cannot be given calibrated ones"):
        verify(certificate, Form("a form", copy.deepcopy(model)))
