"""Nothing planted, nothing blamed; one fault planted, exactly its step, phase and tensor named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.verifier.training.conftest import RECIPE
from verifier.errors import ModelError, UsageError
from verifier.training.records import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from verifier.training.recipe import TrainingRecipe
    from verifier.training.records import Divergence, TrainingParity

    Batches = Iterable[tuple[Tensor, Tensor]]
    Parity = Callable[..., TrainingParity]
    Pair = tuple[Any, Any]


def other(recipe: TrainingRecipe = RECIPE, **changes: Any) -> TrainingRecipe:
    return msgspec.structs.replace(recipe, **changes)


def named(found: Divergence | None) -> tuple[int, Phase, str, str]:
    assert found is not None
    return found.step, found.phase, found.what, found.tensor


PROCEDURES = {
    "SGD with momentum": RECIPE,
    "Nesterov": other(nesterov=True),
    "Adam": other(optimiser="adam", lr=1e-3),
    "clipping": other(clip_norm=0.5),
    "accumulation": other(accumulate=2),
    "cosine": other(schedule="cosine"),
    "step": other(schedule="step", step_size=2),
    "multi-step": other(schedule="multi-step", milestones=(1, 3)),
    "no decay of norms": other(decay_norms=False),
    "scaled loss": other(loss_scale=1024.0),
    "label smoothing": other(label_smoothing=0.1),
    "bfloat16": other(amp="bfloat16"),
    "float16 with its loss scale": other(amp="float16"),
    "bfloat16 with scaled loss and clipping": other(amp="bfloat16", loss_scale=256.0, clip_norm=1.0),
}


@pytest.mark.parametrize("recipe", PROCEDURES.values(), ids=PROCEDURES)
def test_a_model_and_its_copy_are_trained_alike_bit_for_bit(
    twins: Pair, parity: Parity, recipe: TrainingRecipe
) -> None:
    found = parity(*twins, recipe=recipe)
    assert (found.verdict, found.bit_exact, found.steps) == ("match", True, 4)
    assert all(ours == theirs for ours, theirs in found.losses)
    assert len({ours for ours, _ in found.losses}) > 1  # something was learnt


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("recipe", [RECIPE, other(optimiser="adam", lr=1e-3)], ids=["sgd", "adam"])
def test_a_rewritten_model_is_trained_alike_though_rounding_grows(
    rewritten: Pair, parity: Parity, recipe: TrainingRecipe, dtype: str
) -> None:
    found = parity(*rewritten, recipe=recipe, dtype=dtype)
    assert found.verdict == "match", found.culprits[:1]
    assert found.culprits == ()
    assert found.coverage.candidate_share == 1


def slower_statistics(model: Any) -> None:
    model[1].momentum = 0.01


class BiasedNorm(nn.BatchNorm2d):
    """Its running variance is divided by n."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_var is not None
        before = self.running_var.clone()
        y = super().forward(x)
        n = x.numel() / x.shape[1]
        with torch.no_grad():
            self.running_var.data -= (self.running_var - 0.9 * before) / n
        return y


def biased_variance(model: Any) -> None:
    norm = BiasedNorm(4)
    norm.load_state_dict(model[1].state_dict())
    model[1] = norm


def frozen_tensor(model: Any) -> None:
    model[3].conv2.weight.requires_grad_(False)


def other_eps(model: Any) -> None:
    model[3].bn1.eps = 1e-3


MODEL_FAULTS = {
    "batch-norm momentum 0.01": (
        slower_statistics,
        (0, Phase.STATISTICS, "buffer", "1.running_mean"),
        "batchnorm-momentum",
    ),
    "biased running variance": (
        biased_variance,
        (0, Phase.STATISTICS, "buffer", "1.running_var"),
        "running-variance-biased",
    ),
    "a frozen tensor": (frozen_tensor, (0, Phase.BACKWARD, "gradient", "3.conv2.weight"), "frozen"),
    "another eps": (other_eps, (0, Phase.FORWARD, "activation", "3.bn1"), "batchnorm-eps"),
}


@pytest.mark.parametrize(("plant", "where", "cause"), MODEL_FAULTS.values(), ids=MODEL_FAULTS)
def test_a_fault_of_the_model_is_named_exactly(
    twins: Pair,
    parity: Parity,
    plant: Callable[[Any], None],
    where: tuple[int, Phase, str, str],
    cause: str,
) -> None:
    plant(twins[1])
    found = parity(*twins)
    assert found.verdict == "diverged"
    assert named(found.first_divergence) == where
    assert found.first_divergence is not None
    assert found.first_divergence.cause is not None
    assert found.first_divergence.cause.code == cause


def test_the_momentum_of_one_norm_is_blamed_on_its_two_statistics_alone(twins: Pair, parity: Parity) -> None:
    slower_statistics(twins[1])
    found = parity(*twins)
    assert [each.tensor for each in found.culprits] == ["1.running_mean", "1.running_var"]
    assert found.culprits[0].cause is not None
    assert found.culprits[0].cause.summary.startswith("momentum is 0.01, the baseline's 0.1")


def test_only_the_frozen_tensor_is_blamed(twins: Pair, parity: Parity) -> None:
    frozen_tensor(twins[1])
    assert [each.tensor for each in parity(*twins).culprits] == ["3.conv2.weight"]


NORMS = ["1.weight", "3.bn1.weight", "3.bn2.weight", "4.bn1.weight", "4.bn2.weight", "4.downsample.1.weight"]


def test_weight_decay_on_norms_is_named_and_blamed_on_what_is_not_to_decay(
    twins: Pair, parity: Parity
) -> None:
    found = parity(*twins, recipe=other(decay_norms=False), candidate_recipe=RECIPE)
    assert named(found.first_divergence) == (0, Phase.OPTIMISER, "momentum_buffer", "0.bias")
    narrow = {name for name, p in twins[0].named_parameters() if p.dim() == 1}
    assert {each.tensor for each in found.culprits} == narrow
    assert {each.cause.code for each in found.culprits if each.cause} == {"weight-decay"}
    assert [each.tensor for each in found.culprits if each.step == 0 and each.tensor in NORMS] == NORMS


def test_a_tensor_the_optimiser_is_not_given_is_named(twins: Pair, parity: Parity) -> None:
    found = parity(*twins, candidate_recipe=other(frozen=("3.bn1.*",)))
    assert named(found.first_divergence) == (0, Phase.CLIP, "gradient", "3.bn1.weight")
    assert {each.tensor for each in found.culprits} == {"3.bn1.weight", "3.bn1.bias"}
    assert {each.cause.code for each in found.culprits if each.cause} == {"frozen"}


def loop(
    *, clear: bool = True, schedule_steps: int = 1, clip: float | None = None, lr: float = 0.05
) -> Callable[[nn.Module, Batches], None]:
    """A loop as a user would write it, which does what `RECIPE` with an exponential schedule does."""

    def train(model: nn.Module, batches: Batches) -> None:
        optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.9)
        for images, labels in batches:
            if clear:
                optimiser.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimiser.step()
            for _ in range(schedule_steps):
                schedule.step()

    return train


def test_two_loops_of_a_users_own_are_compared(twins: Pair, parity: Parity) -> None:
    found = parity(*twins, trainer=loop(), candidate_trainer=loop())
    assert (found.verdict, found.bit_exact) == ("match", True)


def test_a_loop_that_does_what_a_recipe_says_matches_it(twins: Pair, parity: Parity) -> None:
    found = parity(*twins, recipe=other(schedule="step", step_size=1, gamma=0.9), candidate_trainer=loop())
    assert found.verdict == "match", found.culprits[:1]


TRAINER_FAULTS = {
    "no zero_grad": (loop(clear=False), (1, Phase.BACKWARD, "gradient", "7.weight"), "gradients-not-cleared"),
    "a schedule stepped twice": (
        loop(schedule_steps=2),
        (0, Phase.SCHEDULE, "learning rate", "learning rate"),
        "schedule-steps",
    ),
    "a schedule never stepped": (
        loop(schedule_steps=0),
        (0, Phase.SCHEDULE, "learning rate", "learning rate"),
        "schedule-missing",
    ),
    "gradients clipped": (loop(clip=0.1), (0, Phase.CLIP, "gradient", "0.weight"), "gradients-scaled"),
    "another learning rate": (loop(lr=0.1), (0, Phase.OPTIMISER, "weight", "0.weight"), "learning-rate"),
}


@pytest.mark.parametrize(("train", "where", "cause"), TRAINER_FAULTS.values(), ids=TRAINER_FAULTS)
def test_a_fault_of_the_loop_is_named_exactly(
    twins: Pair, parity: Parity, train: Any, where: tuple[int, Phase, str, str], cause: str
) -> None:
    found = parity(*twins, trainer=loop(), candidate_trainer=train, steps=8)
    assert found.verdict == "diverged"
    assert found.first_divergence is not None
    step, phase, what, tensor = named(found.first_divergence)
    assert (step, phase, what) == where[:3]
    assert tensor == where[3]
    assert found.first_divergence.cause is not None
    assert (found.first_divergence.cause.code, found.first_divergence.cause.confirmed) == (cause, True)


def test_a_loop_that_leaves_batches_out_is_refused(twins: Pair, parity: Parity) -> None:
    def lazy(model: nn.Module, batches: Batches) -> None:
        next(iter(batches))

    with pytest.raises(ModelError, match="the candidate's trainer ended after 0 batches"):
        parity(*twins, trainer=loop(), candidate_trainer=lazy)


def test_own_weights_are_nothing_to_start_from(twins: Pair, parity: Parity) -> None:
    with pytest.raises(UsageError, match="nothing to start a training from"):
        parity(*twins, weights="as-is")


def test_recipes_that_ask_for_other_batches_are_refused(twins: Pair, parity: Parity) -> None:
    with pytest.raises(UsageError, match="let them agree on batch_size"):
        parity(*twins, candidate_recipe=other(batch_size=8))


def test_a_parameter_without_a_partner_leaves_the_verdict_open(twins: Pair, parity: Parity) -> None:
    twins[1].register_parameter("spare", nn.Parameter(torch.ones(3)))
    found = parity(*twins)
    assert (found.verdict, found.reason) == (
        "inconclusive",
        "the candidate's spare is trained and has no partner in the other model",
    )


def test_a_loop_without_a_step_leaves_the_verdict_open(twins: Pair, parity: Parity) -> None:
    def idle(model: nn.Module, batches: Batches) -> None:
        for images, labels in batches:
            F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]

    found = parity(*twins, trainer=idle, candidate_trainer=idle)
    assert (found.verdict, found.reason) == ("inconclusive", "the baseline's optimiser made no step")


def test_neither_model_nor_the_process_is_changed(twins: Pair, parity: Parity) -> None:
    before = [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each in twins]
    modes = [[module.training for module in each.modules()] for each in twins]
    state = torch.get_rng_state()
    parity(*twins, candidate_trainer=loop(clear=False))
    for each, tensors in zip(twins, before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in each.state_dict().items())
        assert all(parameter.grad is None for parameter in each.parameters())
        assert not any(module._forward_hooks for module in each.modules())
    assert modes == [[module.training for module in each.modules()] for each in twins]
    assert torch.equal(state, torch.get_rng_state())


class Doubling(nn.Module):
    """A batch norm whose input's gradient is doubled: the forward pass is right, the backward pass is not."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x.register_hook(lambda gradient: gradient * 2)  # type: ignore[no-untyped-call]
        y: Tensor = self.norm(x)
        return y


def test_a_backward_pass_that_is_wrong_where_the_forward_is_right_is_named(
    twins: Pair, parity: Parity
) -> None:
    twins[1][3].bn2 = Doubling(twins[1][3].bn2)
    found = parity(*twins)
    assert named(found.first_divergence) == (0, Phase.BACKWARD, "gradient", "3.conv2.weight")
    assert {each.tensor for each in found.culprits} == {
        "3.conv2.weight",
        "3.relu",
    }  # what it is multiplied into


def test_steps_are_counted_where_gradients_are_accumulated(twins: Pair, parity: Parity) -> None:
    def stumbling(model: nn.Module, batches: Batches) -> None:
        """Forgets to divide by two, from the third step on."""
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        for number, (images, labels) in enumerate(batches):
            if number % 2 == 0:
                optimiser.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            (loss / (2 if number < 4 else 1)).backward()  # type: ignore[no-untyped-call]
            if number % 2:
                optimiser.step()

    found = parity(*twins, recipe=other(accumulate=2), candidate_trainer=stumbling)
    assert named(found.first_divergence) == (2, Phase.LOSS, "loss", "loss")
    assert found.first_divergence is not None
    assert found.first_divergence.batch == 4
