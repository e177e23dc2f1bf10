"""What was found in one cell, and in blocks run alone."""

from __future__ import annotations

import enum

from verifier.records.base import Record, Verdict
from verifier.records.pairs import Comparison, Exhibit, PairResult


class Repeatability(Record, frozen=True, kw_only=True):
    """Whether further runs gave the same numbers: the first site of either model that did not, None if all did."""

    runs: int
    baseline: str | None = None
    candidate: str | None = None

    @property
    def broken(self) -> str:
        """Why no match can be said of the two, in words; empty where both gave the same numbers every time."""
        for side, site in (("baseline", self.baseline), ("candidate", self.candidate)):
            if site is not None:
                return f"the {side} is not repeatable: in {self.runs} runs {site} is the first that differs"
        return ""


class NoiseFloor(Record, frozen=True, kw_only=True):
    """How far the baseline is from itself where nothing has changed that should matter.

    The largest relative L2 error (NRMSE) of any pair with another number of threads, the other memory format, and
    the samples in reverse order; None where that was not tried.
    """

    threads: float | None = None
    layout: float | None = None
    position: float | None = None


class Hardware(Record, frozen=True, kw_only=True):
    """Whether the device computes as exactly as the cell's dtype promises: `match` or `diverged`.

    It is the baseline that is asked, so this is no part of a cell's verdict on the candidate. Of `compared` sites
    that sum products, `beyond` are farther from float64 on the CPU than rounding explains; `site` is farthest for
    what is explained (`allowed`), and `distance` how far (NRMSE of one step on the same numbers, or of all that has
    added up there, where that is less than one step may err by).
    """

    verdict: Verdict
    compared: int
    beyond: int
    site: str | None
    distance: float
    allowed: float


class Flip(Record, frozen=True, kw_only=True):
    """A sample to which the candidate gives another highest class than the baseline, or to which one gives none.

    `margin` is the gap between the baseline's best and second-best logit, `error` the largest of any of its logits,
    `baseline` and `candidate` are the highest classes. Samples count from 0; `name` is what its data calls it.
    """

    sample: int
    margin: float
    error: float
    baseline: int
    candidate: int
    name: str = ""


class SampleErrors(Record, frozen=True, kw_only=True):
    """The relative L2 error of each sample of the first floating-point output that holds one row for each.

    `quantiles` are pairs of a share (0..1) of the samples and the error that so many do not exceed, which is known to
    one part in a hundred. `undefined` samples have no finite error, and count as beyond all others. `largest` is the
    error of the sample `worst`, called `name` by its data.
    """

    samples: int
    quantiles: tuple[tuple[float, float], ...]
    largest: float
    worst: int
    undefined: int = 0
    name: str = ""


class OutputAgreement(Record, frozen=True, kw_only=True):
    """Agreement of the final outputs in the first numerics cell.

    `mse` and `bit_exact` are over all outputs of one shape; of no numbers `mse` is NaN. `bit_exact` says that they
    are equal bit for bit, NaN payloads and the sign of zero included; it is None where dtypes differ.

    All else reads the first two-dimensional floating-point output as class scores (logits), one row for each of
    `samples`, and is None where there is none; boxes with labels of their own are none:

    - `pearson_probabilities` is the correlation of the class probabilities, None where they are constant or not
      finite on both sides alike.
    - `top1_agreement` and `top5_agreement` are the shares (0..1) of samples with the same highest class, and the same
      set of five highest classes (None for fewer than six classes). Of equal scores the one of the lower class is the
      higher; a sample with a NaN in either model has no highest classes and agrees in nothing.
    - `kl_mean` and `kl_max` are KL(baseline || candidate) of the class probabilities in nats, over samples: infinite
      where a class has probability 0 in the candidate alone, NaN where a sample has no probabilities.
    - `smallest_margin` is the smallest gap between the baseline's best and second-best logit of a sample (0 for a
      tie), `largest_logit_error` the largest |candidate - baseline| of any logit (0 for equal infinities); either is
      NaN where a logit it needs is.
    - `top1_safe` says that the margin is more than twice the error. The best logit then falls by at most the error
      and no other rises by more, so what was more than twice that apart keeps its order: no error of this size,
      anywhere, could have changed the highest class of a sample. Rounding is monotone, so this holds of the rounded
      figures as well. NaN is never safe, and neither is a tie, be the error 0.

    Of no samples, shares and figures are NaN.

    `flipped` counts the samples that do not agree in the highest class; `flips` tells up to a hundred of them,
    those of the widest margins first.

    `worst_channel` is the largest relative L2 error of a slice along the last axis of any floating-point output of
    two or more dimensions. `sample_errors` tells how the error is spread over the samples.
    """

    mse: float
    pearson_probabilities: float | None
    top1_agreement: float | None
    top5_agreement: float | None = None
    kl_mean: float | None = None
    kl_max: float | None = None
    smallest_margin: float | None = None
    largest_logit_error: float | None = None
    top1_safe: bool | None = None
    bit_exact: bool | None = None
    samples: int | None = None
    worst_channel: float | None = None
    flipped: int | None = None
    flips: tuple[Flip, ...] = ()
    sample_errors: SampleErrors | None = None


class CellResult(Record, frozen=True, kw_only=True):
    """Everything measured in one device x dtype x memory-format setting.

    `role` is `semantics` (float64: is it the same program?) or `numerics` (is it as accurate?).
    `first_divergence` and `culprits` are rows of `layers`, or stand for sites without a partner there.
    `batch_size` is the number of samples that went through both models. A cell that could not run has the verdict
    `skipped`, the reason for it and no layers; `named` says whether it was asked for by name, so that the whole
    cannot be a match without it. `output` is the agreement of the final outputs in this cell.
    `outputs` has, for each output, the row of `layers` it is judged at.
    `repeatable` is there where it was asked for, `noise_floor` where an error came within half of what is allowed
    and float64 has not told the models apart.
    `exhibits` show what the culprits do.
    """

    name: str
    role: str
    verdict: Verdict
    batch_size: int
    reason: str = ""
    first_divergence: PairResult | None = None
    culprits: tuple[PairResult, ...] = ()
    layers: tuple[PairResult, ...] = ()
    seconds: float = 0.0
    named: bool = True
    output: OutputAgreement | None = None
    outputs: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    repeatable: Repeatability | None = None
    noise_floor: NoiseFloor | None = None
    hardware: Hardware | None = None
    exhibits: tuple[Exhibit, ...] = ()


class Level(enum.StrEnum):
    """How much of the network a step of progressive verification covers."""

    BLOCK = "block"
    STAGE = "stage"


class Step(Record, frozen=True, kw_only=True):
    """One block or one stage, run alone on the baseline's inputs in float64.

    `name` is the baseline's module, or its first and last site where it is between two; `candidate` the candidate's
    first and last site there. `error` is over all tensors it hands on, `allowed` its largest relative error (NRMSE).
    """

    level: Level
    name: str
    candidate: str | None
    sites: int
    verdict: Verdict
    error: Comparison | None
    allowed: float
    reason: str = ""
