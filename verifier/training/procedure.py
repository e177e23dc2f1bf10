"""Training by a recipe, batch by batch."""

from __future__ import annotations

import contextlib
import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.optim import lr_scheduler

from verifier.errors import UsageError, suggestion
from verifier.models.specs import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from verifier.training.recipe import TrainingRecipe

    Batches = Iterable[tuple[Tensor, Tensor]]
    Trainer = Callable[[nn.Module, Batches], object]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Learnt(NamedTuple):
    """What a batch left behind: its logits (N, classes) and its mean loss, both detached."""

    logits: Tensor
    loss: Tensor


class Procedure:
    """A model's optimiser, schedule and loss scale by a recipe, and what they do with a batch.

    Args:
        model: The model to train, in training mode, on the device the batches will be on.
        recipe: How.
        batches: Batches of the whole training; a cosine without a period runs over the steps or epochs they make.
        epoch_batches: Batches of one epoch. Those that make one step may lie on both sides of its end.

    Raises:
        UsageError: The recipe freezes a parameter the model has not, or all of them, or names no teacher.
    """

    def __init__(self, model: nn.Module, recipe: TrainingRecipe, *, batches: int, epoch_batches: int) -> None:
        self.model = model
        self.recipe = recipe
        self.optimiser = _optimiser(model, recipe)
        by_epoch = recipe.unit == "epoch"
        self.schedule = _schedule(
            self.optimiser, recipe, batches // (epoch_batches if by_epoch else recipe.accumulate)
        )
        self._device = next(model.parameters()).device.type
        self._teacher = _teacher(model, recipe)
        self._scaler = torch.amp.GradScaler(
            self._device, init_scale=recipe.initial_scale or 1.0, enabled=recipe.initial_scale is not None
        )
        self._epoch_batches = epoch_batches if by_epoch else None
        given = {id(parameter) for group in self.optimiser.param_groups for parameter in group["params"]}
        self._learning = {
            name: parameter for name, parameter in model.named_parameters() if id(parameter) in given
        }
        self._batches = 0

    def learn(self, images: Tensor, labels: Tensor) -> Learnt:
        """One batch: forward, loss, backward and, once enough batches are accumulated, a step.

        Args:
            images: (N, C, H, W).
            labels: (N,), int64.
        """
        recipe = self.recipe
        if self._batches % recipe.accumulate == 0:
            self.optimiser.zero_grad()
        with self._autocast():
            logits = self.model(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            if self._teacher is not None:
                loss = (1 - recipe.distillation) * loss + recipe.distillation * self._distilled(
                    images, logits
                )
        self._scaler.scale(loss / recipe.accumulate if recipe.accumulate > 1 else loss).backward()  # type: ignore[no-untyped-call]
        self._batches += 1
        if self._batches % recipe.accumulate == 0:
            self._step()
        if self._epoch_batches and self._batches % self._epoch_batches == 0:
            self._end_epoch()
        return Learnt(logits.detach(), loss.detach())

    def _distilled(self, images: Tensor, logits: Tensor) -> Tensor:
        """The divergence of the teacher's classes from the model's, softened, as large as the labels' loss is."""
        assert self._teacher is not None  # noqa: S101 - where there is none, nothing is distilled
        temperature = self.recipe.temperature
        with torch.no_grad():
            wanted = self._teacher(images)
        if wanted.shape != logits.shape:
            raise UsageError(
                f"the teacher {self.recipe.teacher} returns {tuple(wanted.shape)}, the model {tuple(logits.shape)}: "
                "they are to tell the same classes apart."
            )
        soft, known = (F.log_softmax(each / temperature, dim=1) for each in (logits, wanted))
        return F.kl_div(soft, known, reduction="batchmean", log_target=True) * temperature**2

    def _step(self) -> None:
        scaler, recipe = self._scaler, self.recipe
        if recipe.clip_norm is not None:
            scaler.unscale_(self.optimiser)
            # Not those of frozen parameters: nobody clears them, so they grow from batch to batch.
            torch.nn.utils.clip_grad_norm_(self._learning.values(), recipe.clip_norm)
        before = scaler.get_scale()
        scaler.step(self.optimiser)
        scaler.update()
        overflowed = scaler.get_scale() < before  # so the step was left out
        if recipe.unit == "step" and not overflowed:
            self.schedule.step()

    def _end_epoch(self) -> None:
        with contextlib.ExitStack() as stack:
            if self._batches == self._epoch_batches:
                # The first epoch is over also where it made no step: too few batches, or all gradients overflowed.
                stack.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            self.schedule.step()

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on exactly here, besides the model's own tensors."""
        return {
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "batches": self._batches,
            "gradients": self._half_accumulated(),
        }

    def _half_accumulated(self) -> dict[str, Tensor]:
        """The gradients that batches to come will be added to, by the name of their parameter."""
        if self._batches % self.recipe.accumulate == 0:
            return {}
        return {
            name: parameter.grad for name, parameter in self._learning.items() if parameter.grad is not None
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._batches = state["batches"]
        for name, gradient in state["gradients"].items():
            parameter = self._learning[name]
            parameter.grad = gradient.to(parameter.device)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.recipe.amp == "off":
            return contextlib.nullcontext()
        return torch.autocast(self._device, _DTYPES[self.recipe.amp])


def trainer(recipe: TrainingRecipe, *, steps: int, epoch_steps: int) -> Trainer:
    """The loop that trains by a recipe: the same call as one of a user's own."""

    def train(model: nn.Module, batches: Batches) -> None:
        procedure = Procedure(
            model, recipe, batches=steps * recipe.accumulate, epoch_batches=epoch_steps * recipe.accumulate
        )
        for images, labels in batches:
            procedure.learn(images, labels)

    return train


def _teacher(model: nn.Module, recipe: TrainingRecipe) -> nn.Module | None:
    """The network to learn from, on the device and in the dtype of the model."""
    if not recipe.teacher:
        return None
    like = next(model.parameters())
    return load(recipe.teacher, seed=0).model.to(like.device, like.dtype).requires_grad_(requires_grad=False)


def _optimiser(model: nn.Module, recipe: TrainingRecipe) -> Optimizer:
    frozen = _frozen(model, recipe)
    named = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name not in frozen
    ]
    if not named:
        raise UsageError("nothing is left to train: every parameter is frozen.")
    groups = [{"params": [parameter for _, parameter in named], "weight_decay": recipe.weight_decay}]
    if not recipe.decay_norms and recipe.weight_decay:
        wide = [parameter for _, parameter in named if parameter.dim() > 1]
        narrow = [parameter for _, parameter in named if parameter.dim() <= 1]
        groups = [
            {"params": parameters, "weight_decay": decay}
            for parameters, decay in ((wide, recipe.weight_decay), (narrow, 0.0))
            if parameters
        ]
    if recipe.optimiser == "adam":
        return torch.optim.Adam(groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def _frozen(model: nn.Module, recipe: TrainingRecipe) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for pattern in recipe.frozen:
        wanted = re.compile(".+".join(map(re.escape, pattern.split("*"))))
        matching = {name for name in names if name == pattern or wanted.fullmatch(name)}
        if not matching:
            raise UsageError(
                f"the recipe freezes {pattern!r}, which the model has not{suggestion(pattern, names) or '.'}"
            )
        found |= matching
    return found


def _schedule(optimiser: Optimizer, recipe: TrainingRecipe, whole: int) -> lr_scheduler.LRScheduler:
    """The recipe's schedule; `whole` is the length of the training in the units it counts."""
    if recipe.schedule == "step":
        return lr_scheduler.StepLR(optimiser, recipe.step_size, recipe.gamma)
    if recipe.schedule == "multi-step":
        return lr_scheduler.MultiStepLR(optimiser, list(recipe.milestones), recipe.gamma)
    if recipe.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimiser, recipe.period or max(1, whole))
    return lr_scheduler.LambdaLR(optimiser, lambda _: 1.0)
