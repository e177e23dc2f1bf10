"""How to train, as a frozen record that a TOML file can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from verifier.border import toml
from verifier.errors import UsageError, suggestion

if TYPE_CHECKING:
    from pathlib import Path

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class TrainingRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a training procedure that is no network and no data.

    The defaults are those of the CIFAR-10 experiment of He et al. (2015), https://arxiv.org/abs/1512.03385, section
    4.2, but for the schedule, which is one cosine over the whole training.

    Attributes:
        optimiser: `sgd` (momentum, Nesterov) or `adam` (betas, eps; weight decay is added to the gradient).
        lr: Learning rate at the start.
        momentum: Of SGD.
        nesterov: Whether SGD looks ahead.
        betas: Of Adam: decay of its two means.
        eps: Of Adam.
        weight_decay: Multiple of each weight that is added to its gradient.
        decay_norms: Whether gains, shifts and biases (all that has fewer than two dimensions) decay too.
        frozen: Names or patterns (`stem.*`) of parameters the optimiser is not given.
        schedule: `constant`; `step` (times gamma every `step_size`); `multi-step` (times gamma at each milestone);
            `cosine` (down to 0 over `period`).
        unit: What the schedule counts: `step` (of the optimiser) or `epoch`.
        milestones: Of `multi-step`, in units.
        step_size: Of `step`, in units.
        period: Of `cosine`, in units; None for the whole training.
        gamma: Of `step` and `multi-step`.
        clip_norm: Largest Euclidean norm of all gradients together; None for no clipping.
        accumulate: Batches whose mean gradient makes one step, also where an epoch ends among them. Those that are
            left over when the training ends make none.
        amp: Dtype of automatic mixed precision, or `off`.
        loss_scale: Factor on the loss before the backward pass, halved when a gradient overflows; None for the
            usual one: 65536 under float16, none elsewhere.
        label_smoothing: Share of each label that is spread over all classes.
        teacher: Specification of a network to learn from besides (Hinton et al., 2015,
            https://arxiv.org/abs/1503.02531); built with seed 0, it stays as it is. Empty for none.
        temperature: What the scores of both are divided by before the softmax.
        distillation: Share of the loss that is the divergence of the teacher's classes, times the temperature
            squared; the rest is the labels'.
        batch_size: Samples a batch.
    """

    optimiser: Literal["sgd", "adam"] = "sgd"
    lr: Positive = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = False
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 1e-4
    decay_norms: bool = True
    frozen: tuple[str, ...] = ()
    schedule: Literal["constant", "step", "multi-step", "cosine"] = "cosine"
    unit: Literal["step", "epoch"] = "step"
    milestones: tuple[Count, ...] = ()
    step_size: Count = 30
    period: Count | None = None
    gamma: Positive = 0.1
    clip_norm: Positive | None = None
    accumulate: Count = 1
    amp: Literal["off", "bfloat16", "float16"] = "off"
    loss_scale: Positive | None = None
    label_smoothing: Fraction = 0.0
    teacher: str = ""
    temperature: Positive = 4.0
    distillation: Share = 0.9
    batch_size: Annotated[int, msgspec.Meta(ge=2)] = 128

    @property
    def initial_scale(self) -> float | None:
        """The factor on the loss at the start; None where it is not scaled."""
        return 65536.0 if self.loss_scale is None and self.amp == "float16" else self.loss_scale

    def told(self) -> str:
        """The recipe in one line: what it does, not what it leaves out."""
        parts = [f"{self.optimiser} with lr {self.lr:g}"]
        if self.optimiser == "sgd":
            parts.append(f"momentum {self.momentum:g}" + (" (Nesterov)" if self.nesterov else ""))
        else:
            parts.append(f"betas {self.betas[0]:g} and {self.betas[1]:g}, eps {self.eps:g}")
        if self.weight_decay:
            parts.append(
                f"weight decay {self.weight_decay:g}" + ("" if self.decay_norms else " (not on norms)")
            )
        parts.append(self._schedule())
        if self.clip_norm is not None:
            parts.append(f"gradients clipped to norm {self.clip_norm:g}")
        if self.label_smoothing:
            parts.append(f"label smoothing {self.label_smoothing:g}")
        if self.teacher:
            parts.append(
                f"{self.distillation:g} distilled from {self.teacher} at temperature {self.temperature:g}"
            )
        if self.amp != "off":
            parts.append(f"autocast to {self.amp}")
        if self.initial_scale is not None:
            parts.append(f"loss scaled by {self.initial_scale:g}")
        if self.frozen:
            parts.append(f"frozen: {', '.join(self.frozen)}")
        parts.append(f"batch {self.batch_size}" + (f" x {self.accumulate}" if self.accumulate > 1 else ""))
        return ", ".join(parts)

    def _schedule(self) -> str:
        unit = f"{self.unit}s"
        if self.schedule == "step":
            return f"x {self.gamma:g} every {self.step_size} {unit}"
        if self.schedule == "multi-step":
            return f"x {self.gamma:g} after {', '.join(map(str, self.milestones)) or 'no'} {unit}"
        if self.schedule == "cosine":
            return "cosine" if self.period is None else f"cosine over {self.period} {unit}"
        return "constant"


ARTICLE = TrainingRecipe(schedule="multi-step", unit="epoch", milestones=(82, 123))
"""CIFAR-10 for 164 epochs of 391 batches: the paper divides the rate at 32,000 and 48,000 iterations."""

ARTICLE_EPOCHS = 164


def article(epochs: int) -> TrainingRecipe:
    """The recipe of the CIFAR-10 experiment, with milestones at the same shares of a shorter or longer training."""
    marks = (max(1, round(epochs * mark / ARTICLE_EPOCHS)) for mark in ARTICLE.milestones)
    return msgspec.structs.replace(ARTICLE, milestones=tuple(dict.fromkeys(marks)))


def digits() -> TrainingRecipe:
    """What suits 1,437 small images: batches of 64 and one cosine, since there are too few steps for milestones."""
    return TrainingRecipe(batch_size=64)


def photographs() -> TrainingRecipe:
    """What suits some hundred photographs of one's own: Adam in batches of 16, so that there are enough steps."""
    return TrainingRecipe(batch_size=16, optimiser="adam", lr=1e-3)


def read_recipe(path: Path, base: TrainingRecipe) -> TrainingRecipe:
    """`base` with what a TOML file says otherwise: `lr = 0.05`, `schedule = "multi-step"`, `milestones = [30, 40]`.

    Raises:
        UsageError: The file cannot be read, is no TOML, names something unknown or gives it a wrong value.
    """
    content = toml.read(path, f"the recipe {path}", UsageError)
    known = TrainingRecipe.__struct_fields__
    for name in content:
        if name not in known:
            hint = suggestion(name, known) or f"; known are {', '.join(known)}."
            raise UsageError(f"{path}: a recipe has no {name!r}{hint}")
    merged = {**msgspec.to_builtins(base), **content}
    try:
        return msgspec.convert(merged, TrainingRecipe)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {str(error).replace('`$.', '`')}.") from error
