"""What was exercised is recorded, and what differs as written but showed in no number."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import Verdict, verify

if TYPE_CHECKING:
    from verifier.records import Exercise
    from verifier.storage.saving import Verification


class Net(nn.Module):
    """A small network with a pool, a norm and a dropout."""

    def __init__(self, *, ceil: bool = False, rate: float = 0.5, momentum: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8, momentum=momentum)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2, ceil_mode=ceil)
        self.drop = nn.Dropout(rate)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn(self.conv(x))))
        out: Tensor = self.fc(self.drop(x.mean((2, 3))))
        return out


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def compared(candidate: nn.Module, inputs: Any = None, **options: Any) -> Verification:
    given = images() if inputs is None else inputs
    return verify(Net().eval(), candidate, given, weights="as-is", **options)


def exercised(found: Verification) -> Exercise:
    assert found.exercise is not None
    return found.exercise


def left(found: Verification) -> list[tuple[str, str | None, str]]:
    return [(each.kind, each.candidate, each.summary) for each in exercised(found).unexercised]


def test_mode_samples_and_ranges_are_recorded() -> None:
    x = images()
    found = exercised(compared(Net().eval(), x, batch_size=3))
    assert found.mode == "evaluation"
    assert found.samples == (1, 2, 3)  # two in float64, then three and one
    (given,) = found.inputs
    assert (given.dtype, given.low, given.high) == ("float32", float(x.min()), float(x.max()))
    assert found.unexercised == ()
    assert found.alone == 0


def test_the_range_of_an_input_is_that_of_its_finite_numbers() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            out: Tensor = self.fc(x).masked_fill(mask.isinf(), 0)
            return out

    model = Masked().eval()
    mask = torch.tensor([[0.0, -torch.inf, 2.0, 0.0]])
    found = exercised(verify(model, copy.deepcopy(model), (torch.ones(1, 4), mask), weights="as-is"))
    assert [(each.low, each.high) for each in found.inputs] == [(1, 1), (0, 2)]


@pytest.mark.parametrize(
    ("train", "mode"), [((), "evaluation"), (("bn", "drop", ""), "training"), (("bn",), "mixed")]
)
def test_the_mode_is_that_of_the_modules_that_read_it(train: tuple[str, ...], mode: str) -> None:
    models = [Net().eval(), Net().eval()]
    for model in models:
        model.drop = nn.Dropout(0.0).eval()
        for name in train:
            model.get_submodule(name).training = True
        model.relu = nn.ReLU()  # as it is built, in training mode, which a ReLU does not read
    assert exercised(verify(models[0], models[1], images(), weights="as-is")).mode == mode


def test_a_setting_that_other_sizes_alone_show_is_told_and_no_divergence() -> None:
    found = compared(Net(ceil=True).eval())
    assert found.verdict is Verdict.MATCH
    assert left(found) == [("hyperparameter", "pool", "ceil_mode True, baseline False")]
    assert "one row and one column larger" in exercised(found).unexercised[0].why


@pytest.mark.parametrize(
    ("candidate", "site", "summary"),
    [
        (Net(momentum=0.01), "bn", "momentum is 0.01, the baseline's 0.1"),
        (Net(rate=0.2), "drop", "dropout of 0.2, the baseline's dropout of 0.5"),
        (Net(rate=0.0), None, "no dropout, the baseline's dropout of 0.5"),
    ],
)
def test_what_acts_in_training_mode_alone_is_told_and_no_divergence(
    candidate: nn.Module, site: str | None, summary: str
) -> None:
    found = compared(candidate.eval())
    assert found.verdict is Verdict.MATCH
    assert left(found) == [("training", site, summary)]
    assert "training mode alone" in exercised(found).unexercised[0].why


class Path(nn.Module):
    """A path that is dropped now and then in training mode, in plain Python."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(()) > self.drop_prob) if self.training else x


def test_rates_of_dropped_paths_are_compared() -> None:
    models = [nn.Sequential(nn.Linear(4, 4), Path(rate)).eval() for rate in (0.1, 0.3)]
    models[1].load_state_dict(models[0].state_dict())
    found = verify(models[0], models[1], torch.randn(2, 4), weights="as-is")
    assert found.verdict is Verdict.MATCH
    assert left(found) == [("training", "1", "it drops paths at rates of 1 x 0.3, the baseline 1 x 0.1")]


def test_a_row_that_is_never_looked_up_is_told_and_no_divergence() -> None:
    baseline = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 4)).eval()
    candidate: Any = copy.deepcopy(baseline)
    with torch.no_grad():
        candidate[0].weight[40] += 1
    found = verify(baseline, candidate, torch.arange(12).reshape(2, 6), weights="as-is")
    assert found.verdict is Verdict.MATCH
    ((kind, tensor, summary),) = left(found)
    assert (kind, tensor) == ("tensor", "0.weight")
    assert "40" in summary


def test_a_tensor_that_is_to_blame_is_not_told_as_unexercised() -> None:
    candidate = Net().eval()
    with torch.no_grad():
        candidate.conv.weight[0] += 1
    found = compared(candidate)
    assert [each.baseline for each in found.culprits] == ["conv"]
    assert left(found) == []


def test_another_spelling_that_was_run_alone_is_no_difference() -> None:
    candidate: Any = Net().eval()
    candidate.relu = nn.Hardtanh(0, float("inf"))
    found = compared(candidate)
    assert found.verdict is Verdict.MATCH
    assert left(found) == []
    assert exercised(found).alone == 1


class Normalised(nn.Module):
    """Rows of length 1."""

    def __init__(self, *, by_hand: bool) -> None:
        super().__init__()
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=1, keepdim=True) if self.by_hand else F.normalize(x)


def test_what_is_finite_on_one_side_alone_is_told() -> None:
    models = [nn.Sequential(nn.Linear(4, 4), Normalised(by_hand=by_hand)).eval() for by_hand in (False, True)]
    models[1].load_state_dict(models[0].state_dict())
    found = verify(models[0], models[1], torch.randn(2, 4), weights="as-is")
    assert found.verdict is Verdict.MATCH
    assert ["zeros" in each.why and "not finite" in each.why for each in exercised(found).unexercised] == [
        True
    ]


def test_without_float64_nothing_is_run_alone_and_that_is_told() -> None:
    candidate: Any = Net().eval()
    candidate.relu = nn.ReLU6()
    found = compared(candidate, 0.1 * images(), semantics=False)
    assert found.verdict is Verdict.MATCH
    assert [each.why for each in exercised(found).unexercised] == ["it was not run alone"]


def test_a_norm_that_is_folded_into_its_convolution_leaves_nothing_open() -> None:
    whole = Net().eval()
    folded = copy.deepcopy(whole)
    folded.conv = nn.utils.fuse_conv_bn_eval(folded.conv, folded.bn)
    folded.bn = nn.Identity()  # type: ignore[assignment]
    for one, other in ((whole, folded), (folded, whole)):
        found = verify(one, other, images(), weights="as-is")
        assert found.verdict is Verdict.MATCH
        assert "conv2d" not in " ".join(each.summary for each in exercised(found).unexercised)


def test_a_captured_program_reads_no_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Net().eval().relu).eval()
    x = torch.randn(8, 4)
    program = torch.export.export(model, (x,))
    assert exercised(verify(model, program, x)).mode == "evaluation"
