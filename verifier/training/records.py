"""The records of training: of two models side by side, and of an experiment. Free of tensors, as all records."""

from __future__ import annotations

import enum

from verifier.records import Comparison, Coverage, Environment, ModelInfo, Record, Verdict, WeightsInfo
from verifier.training.recipe import TrainingRecipe  # noqa: TC001 - msgspec reads it when a record is read

SCHEMA_VERSION = 1


class Phase(enum.StrEnum):
    """The parts of a step, in the order in which they happen."""

    FORWARD = "forward"
    STATISTICS = "running statistics"
    LOSS = "loss"
    BACKWARD = "backward"
    CLIP = "gradients as applied"
    OPTIMISER = "optimiser"
    AFTER = "after the step"
    SCHEDULE = "schedule"


class TrainingCause(Record, frozen=True, kw_only=True):
    """Why the candidate's procedure differs where it does; `confirmed` if undoing it gave the baseline's numbers."""

    code: str
    summary: str
    confirmed: bool = False


class Allowed(Record, frozen=True, kw_only=True):
    """The largest relative error a tensor may have on identical inputs, and the rule that says so."""

    limit: float
    rule: str


class Divergence(Record, frozen=True, kw_only=True):
    """The first error beyond what is allowed: when, in which phase, at which tensor.

    `step` counts the baseline's optimiser steps and `batch` what both models were given, from 0; they differ where
    gradients are accumulated. `what` says what of the tensor is meant (`gradient`, `momentum_buffer`, ...);
    `tensor` is the baseline's name, `candidate` the candidate's. `total` and `intrinsic` are relative errors,
    infinite where one side has no such tensor. `comparison` has all figures where both sides have it.
    """

    step: int
    batch: int
    phase: Phase
    what: str
    tensor: str
    candidate: str
    total: float
    intrinsic: float
    allowed: Allowed
    reason: str
    comparison: Comparison | None = None
    cause: TrainingCause | None = None


class TensorRow(Record, frozen=True, kw_only=True):
    """One tensor of one phase over all batches.

    `total` has for each batch the relative error of a candidate that trains freely, `intrinsic` that of one which is
    given the baseline's tensors at every place before and after it. None where the batch had no such tensor (no
    step was made) on either side.
    """

    phase: Phase
    what: str
    tensor: str
    candidate: str
    shape: tuple[int, ...]
    allowed: Allowed
    culprit: bool
    first_step: int | None
    total: tuple[float | None, ...]
    intrinsic: tuple[float | None, ...]


class TrainingParity(Record, frozen=True, kw_only=True):
    """Two models trained side by side. Serialises to `training-parity.json`.

    `bit_exact` says whether every number of the candidate's free training was the baseline's. `losses` are the
    baseline's and the candidate's, batch by batch, in free training, as the backward pass starts from them: times the
    loss scale, divided by the batches that make a step. `rates` are the learning rates after each batch.
    """

    verdict: Verdict
    reason: str
    first_divergence: Divergence | None
    culprits: tuple[Divergence, ...]
    bit_exact: bool
    steps: int
    batches: int
    losses: tuple[tuple[float, float], ...]
    rates: tuple[tuple[float, float], ...]
    rows: tuple[TensorRow, ...]
    baseline: ModelInfo
    candidate: ModelInfo
    baseline_procedure: str
    candidate_procedure: str
    data: str
    dtype: str
    device: str
    coverage: Coverage
    weights: WeightsInfo
    notes: tuple[str, ...]
    seed: int
    environment: Environment
    command: str
    seconds: float
    created: str
    schema_version: int = SCHEMA_VERSION


class Epoch(Record, frozen=True, kw_only=True):
    """One epoch: mean loss (nats) and share of right answers, while learning and on the test images."""

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    images_per_second: float


class SampleImage(Record, frozen=True, kw_only=True):
    """A test image, small, as a PNG in base64, its label, and what each network says of it (class, probability)."""

    png: str
    label: int
    predictions: tuple[tuple[int, float], ...]


class Learner(Record, frozen=True, kw_only=True):
    """A network and how it learnt.

    `confusion[i][j]` counts test images of class i that were called j. `published` is a published accuracy of the
    network on this data, in 0..1, with its source. `digest` is that of the final parameters and buffers, counts of
    batches left out. `family` is what its family is called.
    """

    name: str
    role: str
    spec: str
    depth: int | None
    parameters: int
    epochs: tuple[Epoch, ...]
    confusion: tuple[tuple[int, ...], ...]
    digest: str
    weights_file: str
    published: tuple[tuple[float, str], ...] = ()
    family: str | None = None

    @property
    def accuracy(self) -> float:
        """Share of test images told rightly after the last epoch."""
        return self.epochs[-1].test_accuracy


class Twins(Record, frozen=True, kw_only=True):
    """Whether a network and its baseline twin learnt alike: the first epoch with other numbers, None for none."""

    name: str
    first_other_epoch: int | None
    same_weights: bool


class Reference(Record, frozen=True, kw_only=True):
    """A published result on the same data: a network, its accuracy in 0..1 and, where told, minutes of training."""

    name: str
    family: str
    depth: int
    parameters: int
    accuracy: float
    minutes: float | None
    source: str


class Experiment(Record, frozen=True, kw_only=True):
    """Networks trained to the end. Serialises to `training.json`.

    `test_scales` are sizes in pixels at which test images were told, by the mean of the scores; none for their own.
    `references` has what is published of networks on this data.
    `notes` has what keeps the numbers from being those of a training without an interruption, if anything does.
    """

    data: str
    source: str
    classes: tuple[str, ...]
    training_images: int
    test_images: int
    recipe: TrainingRecipe
    recipe_told: str
    epochs: int
    device: str
    learners: tuple[Learner, ...]
    twins: tuple[Twins, ...]
    samples: tuple[SampleImage, ...]
    seed: int
    environment: Environment
    command: str
    seconds: float
    created: str
    notes: tuple[str, ...] = ()
    test_scales: tuple[int, ...] = ()
    references: tuple[Reference, ...] = ()
    schema_version: int = SCHEMA_VERSION
