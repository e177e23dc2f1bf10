"""The closed forms that causes are confirmed with, against torch's own optimisers and losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from verifier.training import cross_entropy
from verifier.training.end_causes import cause as cause_of_end
from verifier.training.history import Course, History
from verifier.training.loss_reading import read
from verifier.training.update_rules import of_torch, run

if TYPE_CHECKING:
    from torch import Tensor

OPTIMISERS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "SGD": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "dampening": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "Nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "uphill": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.5, "maximize": True}),
    "Adam": (torch.optim.Adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "betas": (0.9, 0.5)}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "alpha": 0.9, "momentum": 0.5}),
    "centered": (torch.optim.RMSprop, {"lr": 0.01, "centered": True, "weight_decay": 0.1}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.01, "initial_accumulator_value": 0.2}),
}


@pytest.mark.parametrize(("maker", "options"), OPTIMISERS.values(), ids=OPTIMISERS)
def test_a_rule_makes_the_updates_that_torch_makes(
    maker: type[torch.optim.Optimizer], options: dict[str, Any]
) -> None:
    draws = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(7, generator=draws, dtype=torch.float64))
    optimiser: Any = maker([weight], **options)
    before, gradients, after = [], [], []
    for _ in range(6):
        weight.grad = torch.randn(7, generator=draws, dtype=torch.float64)
        before.append(weight.detach().clone())
        gradients.append(weight.grad.clone())
        optimiser.step()
        after.append(weight.detach().clone())
    rule = of_torch(maker, optimiser.param_groups[0])
    assert rule is not None
    rates = [options["lr"]] * 6
    made = list(run(rule, before, gradients, [float(g.norm()) for g in gradients], rates))
    for each, wanted in zip(made, after, strict=True):
        torch.testing.assert_close(each.weight, wanted, rtol=0, atol=1e-15)
    for name, tensor in made[-1].states.items():
        torch.testing.assert_close(tensor, optimiser.state[weight][name], rtol=1e-13, atol=1e-16)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(3, 9),
    smoothing=st.sampled_from([0.0, 0.05, 0.1, 0.3]),
    last=st.booleans(),
)
def test_a_cross_entropy_is_read_off_its_gradient(
    seed: int, classes: int, smoothing: float, last: bool
) -> None:
    draws = torch.Generator().manual_seed(seed)
    scores = torch.randn(4, classes, 5, generator=draws, dtype=torch.float64)
    labels = torch.randint(classes, (4, 5), generator=draws)
    labels[0, :2] = -100
    scores.requires_grad_()
    loss = F.cross_entropy(scores, labels, ignore_index=-100, label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(loss, scores)
    one, other = (each.detach().movedim(1, -1) if last else each.detach() for each in (scores, gradient))
    found = cross_entropy.read(one, other, 2 if last else 1)
    assert found is not None
    reading = found[0]
    assert reading.smoothing == pytest.approx(smoothing, abs=1e-9)
    assert torch.equal(reading.counted.reshape(4, 5), labels != -100)
    assert torch.equal(reading.labels.reshape(4, 5)[labels != -100], labels[labels != -100])
    assert reading.value() == pytest.approx(float(loss.detach()), rel=1e-9)


def test_what_is_no_cross_entropy_is_not_read_as_one() -> None:
    draws = torch.Generator().manual_seed(0)
    scores, gradient = torch.randn(2, 4, 5, generator=draws, dtype=torch.float64)
    assert cross_entropy.read(scores, gradient) is None
    assert cross_entropy.read(scores, gradient - gradient.mean(1, keepdim=True)) is None


def mean_of(scores: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(scores, labels)


def test_the_counts_of_a_loss_are_read_off_its_graph() -> None:
    scores = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, -100, -100])
    total = F.cross_entropy(scores, labels, reduction="sum")
    assert read(mean_of(scores, labels)).counts == (4,)
    assert read(mean_of(scores, labels) / 2).divisor == 8
    assert read(total / torch.tensor(4)).counts == (4,)
    assert read(total * 1024).divisor == 1 / 1024
    assert read(scores.square().mean()).counts == (30,)
    assert read(total + scores.sum()).counts == ()  # a sum of two is no factor
    assert read(total.detach()).counts == ()


def test_an_average_is_told_by_its_share_and_nothing_else_is() -> None:
    draws = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, generator=draws, dtype=torch.float64) for _ in range(5)]
    course = Course(torch.randn(8, generator=draws, dtype=torch.float64), batches)
    averages = []
    for kept in (0.9, 0.75):
        mean = course.start
        for each in batches:
            mean = kept * mean + (1 - kept) * each
        averages.append(mean)
    found = cause_of_end(course, *averages, buffer=False)
    assert found is not None
    assert "keeps 0.75 of itself" in found.summary
    assert "keeps 0.9 of itself" in found.summary
    assert cause_of_end(course, averages[0], torch.randn(8, dtype=torch.float64), buffer=False) is None


def test_a_history_keeps_few_numbers_of_large_tensors() -> None:
    history = History(batches=1000, tensors=200)
    assert history.sample(torch.zeros(100_000)).numel() <= 8_000_000 / (5 * 1000 * 200)
    assert history.sample(torch.arange(3.0)).tolist() == [0, 1, 2]
