"""Inputs drawn on purpose show what the given ones do not, and find nothing where there is nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.networks import Rewritten, images, network
from verifier import Verdict, verify
from verifier.bench.probes import draws
from verifier.inputs import tensors
from verifier.judge import STRICT, judge_again
from verifier.judge.policy import TASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.records import Probe
    from verifier.storage.saving import Verification


class Net(nn.Module):
    """A convolution, a norm and a linear layer; `step` stands between them, and is given the module."""

    def __init__(self, step: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        x = self.step(self, self.bn(self.conv(x)))
        out: Tensor = self.fc(x.flatten(2).mean(2))
        return out


def plain(_: nn.Module, x: Tensor) -> Tensor:
    return F.relu(x)


def probed(candidate: nn.Module, baseline: nn.Module | None = None, inputs: Any = None) -> Verification:
    x = 0.1 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    given = x if inputs is None else inputs
    return verify(baseline or Net(plain).eval(), candidate, given, weights="as-is", probe=True)


def shown(found: Verification) -> list[str]:
    return [each.name for each in found.probes if each.verdict is Verdict.DIVERGED]


def of(found: Verification, name: str) -> Probe:
    return next(each for each in found.probes if each.name == name)


FAULTS: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], list[str]]] = {
    "in-training": (
        lambda self, x: F.relu(x) * (2 if self.training else 1),
        ["training mode, without dropouts"],
    ),
    "of-one-sample": (lambda _, x: F.relu(x) + (len(x) == 1), ["1 sample a call"]),
    "of-many-samples": (lambda _, x: F.relu(x) + (len(x) > 4), ["8 samples a call"]),
    "of-odd-batches": (lambda _, x: F.relu(x) + len(x) % 2, ["1 sample a call", "3 samples a call"]),
    "of-large-numbers": (
        lambda _, x: F.relu(x).clamp(max=10) if x.max() > 10 else F.relu(x),
        ["numbers scaled by 100"],
    ),
    "of-other-sizes": (
        lambda _, x: F.relu(x) if x.shape[-1] % 2 == 0 else x,
        ["one row and one column more"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_the_given_inputs_hide_shows_on_a_probe(name: str) -> None:
    fault, expected = FAULTS[name]
    candidate = Net(fault).eval()
    x = 0.1 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert verify(Net(plain).eval(), candidate, x, weights="as-is").verdict is Verdict.MATCH
    found = probed(candidate, inputs=x)
    assert found.verdict is Verdict.DIVERGED
    assert set(expected) <= set(shown(found))
    assert found.reason.startswith(f"the given inputs do not show it, a probe does ({shown(found)[0]})")


def test_a_fault_that_the_order_of_samples_hides_needs_no_probe() -> None:
    def misplaced(_: nn.Module, x: Tensor) -> Tensor:
        return F.relu(x) + 1e-3 * torch.arange(len(x)).view(-1, 1, 1, 1) * (x[0].sum() > x[-1].sum())

    x = 0.1 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    x = x[Net(plain).eval().conv(x).sum((1, 2, 3)).argsort()]
    found = verify(Net(plain).eval(), Net(misplaced).eval(), x, weights="as-is")
    assert found.verdict is Verdict.DIVERGED


def test_the_first_site_that_differs_on_a_probe_is_named() -> None:
    probe = of(probed(Net(FAULTS["in-training"][0]).eval()), "training mode, without dropouts")
    assert probe.site == "flatten"  # the doubling has no partner; this reads it
    assert probe.error == pytest.approx(1)
    assert probe.allowed is not None
    assert probe.allowed < 1e-9


def test_other_statistics_show_in_training_mode() -> None:
    candidate = Net(plain).eval()
    candidate.bn.momentum = 0.01
    found = probed(candidate)
    assert shown(found) == ["training mode, without dropouts"]
    assert of(found, shown(found)[0]).site == "bn.running_mean"


def test_a_rewrite_matches_on_every_probe() -> None:
    found = verify(network(), network(Rewritten, seed=1), images(batch=2), probe=True)
    assert found.verdict is Verdict.MATCH
    assert {each.verdict for each in found.probes} == {Verdict.MATCH}
    assert len(found.probes) > 10


def test_what_the_baseline_does_not_take_is_said_and_held_against_nobody() -> None:
    def fixed(_: nn.Module, x: Tensor) -> Tensor:
        return F.relu(x) if len(x) == 2 else F.relu(x).view(4, 8, 16, 16)

    found = probed(Net(plain).eval(), Net(fixed).eval())
    assert found.verdict is Verdict.MATCH
    assert of(found, "1 sample a call").verdict is Verdict.SKIPPED
    assert "the baseline does not take it" in of(found, "1 sample a call").reason


def test_a_size_the_candidate_alone_does_not_take_is_said_and_skipped() -> None:
    def fixed(_: nn.Module, x: Tensor) -> Tensor:
        return F.relu(x) if len(x) == 2 else F.relu(x).view(4, 8, 16, 16)

    found = probed(Net(fixed).eval())
    assert of(found, "1 sample a call").verdict is Verdict.SKIPPED
    assert "the candidate does not take it, the baseline does" in of(found, "1 sample a call").reason


def test_numbers_the_candidate_alone_does_not_take_are_a_difference() -> None:
    def choosy(_: nn.Module, x: Tensor) -> Tensor:
        if x.abs().max() > 20:
            raise ValueError("too large")
        return F.relu(x)

    found = probed(Net(choosy).eval())
    assert shown(found) == ["numbers scaled by 100"]
    assert "too large" in found.reason


def test_dropouts_that_draw_are_held_against_nobody() -> None:
    def often(self: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(F.relu(x), 0.5, self.training)

    def seldom(self: nn.Module, x: Tensor) -> Tensor:
        return F.dropout(F.relu(x), 0.2, self.training)

    found = probed(Net(seldom).eval(), Net(often).eval())
    assert found.verdict is Verdict.MATCH
    assert "random numbers" in of(found, "training mode, without dropouts").reason


def test_whole_numbers_are_drawn_again_in_their_range() -> None:
    given = torch.tensor([[3, 9, 4], [4, 4, 5]])
    drawn = [
        draw.inputs.args[0] for draw in draws(tensors(given), 0, 2) if draw.name.startswith("other whole")
    ]
    assert len(drawn) == 1
    assert drawn[0].dtype == given.dtype
    assert drawn[0].shape == given.shape
    assert int(drawn[0].min()) >= 3
    assert int(drawn[0].max()) <= 9
    assert not drawn[0].equal(given)


def test_a_row_of_an_embedding_in_the_range_shows_on_a_probe() -> None:
    torch.manual_seed(0)
    baseline = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4)).eval()
    candidate: Any = copy.deepcopy(baseline)
    with torch.no_grad():
        candidate[0].weight[3] += 1
    found = probed(candidate, baseline, torch.tensor([[0, 1, 2, 4, 5, 6, 7]] * 2))
    assert shown(found) == ["other whole numbers of the given range"]


def test_models_inputs_and_random_states_are_as_before() -> None:
    baseline, candidate = Net(plain).eval(), Net(plain).eval()
    x = torch.randn(4, 3, 16, 16)
    given = x.clone()
    kept = [copy.deepcopy(model.state_dict()) for model in (baseline, candidate)]
    state = torch.get_rng_state()
    verify(baseline, candidate, x, weights="as-is", probe=True)
    assert torch.get_rng_state().equal(state)
    assert x.equal(given)
    for model, before in zip((baseline, candidate), kept, strict=True):
        assert not any(module.training for module in model.modules())
        assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


def test_without_asking_nothing_is_probed() -> None:
    assert verify(Net(plain).eval(), Net(plain).eval(), torch.randn(2, 3, 16, 16)).probes == ()


def test_what_probes_show_stays_when_it_is_judged_again_but_not_by_the_task() -> None:
    found = probed(Net(FAULTS["of-one-sample"][0]).eval())
    assert judge_again(found, STRICT).verdict is Verdict.DIVERGED
    assert judge_again(found, TASK).verdict is Verdict.MATCH


def test_a_probe_blames_numbers_only_for_what_numbers_show() -> None:
    """A candidate that needs three samples or more is told by the probes of fewer, and by no other."""

    def step(_: nn.Module, x: Tensor) -> Tensor:
        return F.relu(x) if len(x) > 2 else F.relu(x) * 2

    def other(_: nn.Module, x: Tensor) -> Tensor:
        return F.relu(x) if len(x) > 2 else F.relu(x) * 3

    found = probed(Net(step).eval(), Net(other).eval())
    assert shown(found) == ["1 sample a call", "2 samples a call"]
