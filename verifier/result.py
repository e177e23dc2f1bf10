"""The records a verification ends in. Frozen, free of tensors, and all that reports may look at."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd

SCHEMA_VERSION = 1


class Verdict(enum.StrEnum):
    """The answer: are the two models the same function?"""

    MATCH = "match"
    DIVERGED = "diverged"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"
    """Of a cell that could not run; a whole verification never ends so."""


class Status(enum.StrEnum):
    """What happened at one pair.

    `culprit`: its intrinsic error exceeds its budget. `amplifies`: only its total error does, and it is larger
    (relative to the tensor) than what came in. `carries`: only its total error does, and it is no larger than
    what came in. `unmatched`: the site has no partner in the other model.
    """

    OK = "ok"
    CULPRIT = "culprit"
    AMPLIFIES = "amplifies"
    CARRIES = "carries"
    UNMATCHED = "unmatched"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records: immutable, compared by value, keyword arguments only."""


class Comparison(Record, frozen=True, kw_only=True):
    """How far the candidate's tensor lies from the baseline's at one pair.

    Every figure is dimensionless or in the tensor's own unit, computed in float64; `verifier.metrics` gives
    the formulas and what each says for constant, empty and non-finite tensors.
    """

    mse: float
    pearson: float
    one_minus_pearson: float
    cosine: float
    nrmse: float
    sqnr_db: float
    max_abs: float
    max_abs_index: tuple[int, ...] | None
    max_rel: float
    nonfinite_baseline: int
    nonfinite_candidate: int
    nonfinite_mismatched: int = 0
    elements: int = 0

    def within(self, limit: float) -> bool:
        """Whether the relative error is inside a limit; NaN and disagreeing non-finite values never are."""
        if self.nonfinite_mismatched:
            return False
        return self.elements == 0 or self.max_abs == 0 or self.nrmse <= limit


class Precision(Record, frozen=True, kw_only=True):
    """What a low-precision dtype does to both models' tensors at one pair, told against the float64 oracle's tensor.

    Of each pair of counts the first is the baseline's, the second the candidate's. `overflowed` counts elements that
    are finite in the oracle and infinite here, `invalid` those that are finite there and NaN here, `underflowed`
    those that are exactly 0 here, and there not 0 but below the smallest normal number of the tensor's dtype (for
    integers: any number). `subnormal` counts the subnormal numbers
    of the tensor's own dtype, whatever the oracle has.

    `ulp_max` and `ulp_mean` are the distance of the candidate from the baseline in units in the last place: how many
    steps from one value of their dtype to the next lie between them. Both zeros are one value, and infinity is the
    one after the largest finite number. Pairs with a NaN are left out. Both are None where the two dtypes differ or
    are not floating point, and where no pair is left. `bit_exact` says that dtypes and bits are the same, NaN
    payloads and the sign of zero included.
    """

    overflowed: tuple[int, int]
    invalid: tuple[int, int]
    underflowed: tuple[int, int]
    subnormal: tuple[int, int]
    ulp_max: int | None
    ulp_mean: float | None
    bit_exact: bool
    elements: int


class Budget(Record, frozen=True, kw_only=True):
    """The error a pair is allowed in a cell: limits on `metric`, and the rule that gave them.

    `noise_total` and `noise_intrinsic` are the baseline's own distances from the float64 oracle at this pair,
    which the limits were derived from; None where they were not measured. `oracle_total`, `oracle_intrinsic` and
    `oracle_systematic` limit the candidate's distances from the oracle (`Accuracy`); `reduction` is the number of
    terms that are summed for one element, which they grow with; `accumulated` is the largest such number here or
    above, which `oracle_total` grows with.
    """

    rule: str
    metric: str = "nrmse"
    total: float
    intrinsic: float
    noise_total: float | None = None
    noise_intrinsic: float | None = None
    oracle_total: float | None = None
    oracle_intrinsic: float | None = None
    oracle_systematic: float | None = None
    reduction: int = 1
    accumulated: int | None = None


class Accuracy(Record, frozen=True, kw_only=True):
    """How far both models are from the float64 oracle at one pair, as relative L2 distances (NRMSE).

    `total`: from the baseline run in float64 with the master weights. `intrinsic`: what this one step adds where it
    is given numbers of the cell's dtype, its own rounding included. `systematic`: the part of that which is
    the same in all samples, a gain and an offset per channel: what a scale that was rounded leaves behind, while the
    rounding of single elements averages out. None where shapes differ or it was not measured.
    """

    baseline_total: float | None
    candidate_total: float | None
    baseline_intrinsic: float | None = None
    candidate_intrinsic: float | None = None
    baseline_systematic: float | None = None
    candidate_systematic: float | None = None


class Cause(Record, frozen=True, kw_only=True):
    """Why a culprit is wrong, as far as it is known.

    `code` is stable (`verifier.diagnose` lists the families); `unexplained` where nothing was found. `confirmed`
    says that with this one thing as in the baseline the site's error, on the baseline's inputs, fell inside its
    budget. `also` holds the codes of further causes at the same site, `remedy` what to change in the candidate.
    """

    code: str
    summary: str
    confirmed: bool
    evidence: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    remedy: str = ""


class StaticDifference(Record, frozen=True, kw_only=True):
    """Something in which the two models differ as written, seen before anything was compared.

    `kind` is `output` (names of what is returned), `operators` (how often one occurs), `hyperparameter`, `tensor` (a
    parameter or buffer, by value), `dtype`, `layout` or `flag` (a backend flag that building one of them changed).
    `baseline` and `candidate` say where, `summary` what.
    """

    kind: str
    baseline: str | None
    candidate: str | None
    summary: str


class PairResult(Record, frozen=True, kw_only=True):
    """One row of the answer: a pair of sites, or a site without a partner (the other name is None).

    `candidate_op` is the candidate's operator where it is another than `op`, the baseline's.

    `above` holds the indices of the rows this one reads from, through sites without a partner if need be; those
    are named in `between_baseline` and `between_candidate`. `rewired` says that the two sides read from
    different rows. `accuracy` and `precision` are measured in numerics cells, on few samples. `layout` says how the
    candidate's tensor is laid out, where that is not as the baseline's: what gives it from the baseline's, and its
    shape; it was compared, and overwritten, as the baseline lays it out.
    `differences` lists how the two sites differ as written: operator and hyperparameters.

    Where overwriting what is above could not give both sides the same inputs (a site without a partner or a
    tensor of another shape stands there), the candidate's site was run again on the baseline's inputs:
    `replayed` is its error there, `replayed_shape` the shape it gave, and `inputs_differ` says whether its own
    inputs differed though all paired rows above were made equal. All are None elsewhere.
    """

    index: int
    baseline: str | None
    candidate: str | None
    op: str
    shape: tuple[int, ...]
    candidate_op: str | None = None
    candidate_shape: tuple[int, ...] | None = None
    status: Status = Status.OK
    total: Comparison | None = None
    intrinsic: Comparison | None = None
    budget: Budget | None = None
    reason: str = ""
    cause: Cause | None = None
    differences: tuple[str, ...] = ()
    above: tuple[int, ...] = ()
    between_baseline: tuple[str, ...] = ()
    between_candidate: tuple[str, ...] = ()
    rewired: bool = False
    inputs_differ: bool | None = None
    layout: str = ""
    accuracy: Accuracy | None = None
    precision: Precision | None = None
    replayed: Comparison | None = None
    replayed_shape: tuple[int, ...] | None = None

    @property
    def misshapen(self) -> bool:
        """Whether the shapes differ, also on the same inputs as far as these could be given."""
        return self.candidate_shape is not None and self.intrinsic is None

    @property
    def apart(self) -> bool:
        """Whether sites without a partner stand between this row and those it reads from."""
        return bool(self.between_baseline or self.between_candidate)

    @property
    def composed(self) -> bool:
        """Whether one side makes in several operators what the other makes in fewer: they are judged as one."""
        return self.apart and self.candidate_op is not None and self.inputs_differ is None


class Plane(Record, frozen=True, kw_only=True):
    """A picture of a matrix: `rows` x `columns` numbers in 255 steps from `low` to `high`.

    `values` is the base64 text of one byte an element, row by row: 0 stands for `low`, 254 for `high` and 255 for a
    number that is not finite.
    """

    rows: int
    columns: int
    low: float
    high: float
    values: str


class Histogram(Record, frozen=True, kw_only=True):
    """How often which difference occurs: `counts` of elements in bins of one width from `low` to `high`.

    `equal` elements are the same on both sides and `nonfinite` have no finite difference; neither are in `counts`.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    equal: int
    nonfinite: int = 0


class Exhibit(Record, frozen=True, kw_only=True):
    """What a culprit looks like, on the baseline's inputs; taken once, of at most a few dozen culprits a cell.

    `index` is the culprit's row and `site` the pair that was looked at, which is another where the culprit has no
    partner. `baseline_settings` and `candidate_settings` say how the two sites are written: operator, weights and
    hyperparameters. `pattern` describes the difference in a few statements.

    `channels` is the error of each channel (root mean square of the difference, relative to that of the whole
    baseline tensor), the worst of `channels_each` neighbours where there are many. The planes show channel
    `channel` of sample `sample`, where the error is largest: both sides, and candidate minus baseline, of which each
    element is the most extreme of those it stands for. Where there are no planes, or no numbers, these are None.
    """

    index: int
    site: str
    baseline_settings: dict[str, str] = {}
    candidate_settings: dict[str, str] = {}
    pattern: tuple[str, ...] = ()
    channels: tuple[float, ...] = ()
    channels_each: int = 1
    channel: int | None = None
    sample: int | None = None
    baseline: Plane | None = None
    candidate: Plane | None = None
    difference: Plane | None = None
    histogram: Histogram | None = None


class Repeatability(Record, frozen=True, kw_only=True):
    """Whether further runs gave the same numbers: the first site of either model that did not, None if all did."""

    runs: int
    baseline: str | None = None
    candidate: str | None = None


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
    what is explained (`allowed`), and `distance` how far (NRMSE of one step on the same numbers).
    """

    verdict: Verdict
    compared: int
    beyond: int
    site: str | None
    distance: float
    allowed: float


class CellResult(Record, frozen=True, kw_only=True):
    """Everything measured in one device x dtype x memory-format setting.

    `role` is `semantics` (float64: is it the same program?) or `numerics` (is it as accurate?).
    `first_divergence` and `culprits` are rows of `layers`, or stand for sites without a partner there.
    `batch_size` is the number of samples that went through both models. A cell that could not run has the verdict
    `skipped`, the reason for it and no layers; `named` says whether it was asked for by name, so that the whole
    cannot be a match without it. `output` is the agreement of the final outputs in this cell.
    `repeatable` is there where it was asked for. `exhibits` show what the culprits do.
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
    notes: tuple[str, ...] = ()
    repeatable: Repeatability | None = None
    noise_floor: NoiseFloor | None = None
    hardware: Hardware | None = None
    exhibits: tuple[Exhibit, ...] = ()


TASK = "budgets of the task"
"""Source of the criteria that are not published but a policy's own: what a difference may do to the classes."""


class Criterion(Record, frozen=True, kw_only=True):
    """A published acceptance criterion with what was measured; `passed` never decides alone.

    Where a policy judges the task, its budgets for that are criteria too; their `source` is `TASK`.
    """

    name: str
    value: float
    comparison: str
    limit: float
    passed: bool
    source: str = ""


class UnmatchedSite(Record, frozen=True, kw_only=True):
    """A site that could not be paired, on which side (`baseline` or `candidate`), and why.

    `compared_at` names the pair (or the output) at which a few operators built otherwise were compared as a whole.
    """

    side: str
    name: str
    op: str
    reason: str = ""
    compared_at: str | None = None


class Coverage(Record, frozen=True, kw_only=True):
    """How much of both models was compared. Shares, in 0..1, are of the sites that compute something.

    `parameterised` counts the baseline's sites that use a parameter or buffer, `parameterised_compared` those of
    them that were paired. `outputs` counts the tensors each model returns. `hidden` names sites without a partner of
    which nothing can be said, because a parameter that is all 0 or 1 hides what they make.
    """

    compared: int
    baseline_sites: int
    candidate_sites: int
    baseline_share: float
    candidate_share: float
    parameterised: int = 0
    parameterised_compared: int = 0
    outputs: tuple[int, int] = (1, 1)
    unmatched: tuple[UnmatchedSite, ...] = ()
    hidden: tuple[str, ...] = ()


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


class OutputAgreement(Record, frozen=True, kw_only=True):
    """Agreement of the final outputs in the first numerics cell.

    `mse` and `bit_exact` are over all outputs of one shape. `bit_exact` says that they are equal bit for bit, NaN
    payloads and the sign of zero included; it is None where dtypes differ.

    All else reads the first two-dimensional floating-point output as class scores (logits), one row for each of
    `samples`, and is None where there is none:

    - `pearson_probabilities` is the correlation of the class probabilities.
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


class ModelInfo(Record, frozen=True, kw_only=True):
    """Which model took part: its specification, class, parameter count and number of sites."""

    spec: str
    type: str
    parameters: int
    sites: int


class WeightsInfo(Record, frozen=True, kw_only=True):
    """Where the weights came from and which of them cannot reveal a fault.

    `parameter_map` says for each candidate tensor how it is made of the baseline's: `name`, `name[0:64]` for rows of
    it, `name.T` for its transpose, or several of these, put together. `unexercised` names baseline
    parameters that are all 0 or all 1. `kept` names candidate tensors that kept values of their own.
    `baseline_digest` and `candidate_digest` are SHA-256 over names, dtypes, shapes and bits of all that each computes
    with (`verifier.hashing`); empty in results of before they were recorded.
    """

    mode: str
    source: str = ""
    parameter_map: dict[str, str | tuple[str, ...]] = {}
    unmapped_baseline: tuple[str, ...] = ()
    unmapped_candidate: tuple[str, ...] = ()
    unexercised: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    baseline_digest: str = ""
    candidate_digest: str = ""


class InputInfo(Record, frozen=True, kw_only=True):
    """What went in: a line of description, shapes and dtypes per tensor, file names if any, and SHA-256 of it all."""

    description: str
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    digest: str = ""


class StageDifference(Record, frozen=True, kw_only=True):
    """How far a preprocessing stage's numbers are from the baseline's, over all photographs.

    `largest` is absolute, in the stage's unit; `mean` (absolute too) and `share` (0..1, of numbers that differ at
    all) are the largest of any photograph; `picture` names the photograph with the largest difference.
    """

    largest: float
    mean: float
    share: float
    picture: str


class StageResult(Record, frozen=True, kw_only=True):
    """One stage of the preprocessing, compared on all photographs.

    `status` is `exact` (equal bit for bit), `rounding` (equal but for rounding, by `rule`), `differs`, `carries` (the
    same function, given other numbers), `missing` (the candidate has no such stage and would need it), `given` (the
    candidate does not do it but was given the baseline's) or `unseen` (what it makes of a photograph is not shown).
    `total` is the distance of what both sides have after this stage, `intrinsic` that of this stage alone, on
    identical input; None where shapes differ (then `shapes` has the candidate's and the baseline's) or nothing was
    seen. Both are in `unit`: `1/255` is one step of a byte. `exact` counts photographs on which the total is 0.
    `drawn_alike` says whether both drew the same random parameters from the same seed; where not, they were compared
    with the baseline's.
    """

    name: str
    words: str
    status: str
    rule: str
    unit: str
    pictures: int
    exact: int = 0
    total: StageDifference | None = None
    intrinsic: StageDifference | None = None
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    drawn_alike: bool | None = None
    reason: str = ""
    cause: Cause | None = None


class Preprocessing(Record, frozen=True, kw_only=True):
    """Stage 0: are photographs prepared alike for both models?

    `candidate` is how the candidate's preprocessing was named, empty for this package's own; the baseline's is
    torchvision's. `status` is `exact`, `rounding` or `differs`. `first_difference` names the first stage that differs
    beyond rounding on identical input, or is empty. `output` is the distance of the final tensors; `cause` what
    explains it where no stage could be seen. `applied` says whether the candidate was run on its own tensors.
    """

    recipe: str
    candidate: str
    status: str
    stages: tuple[StageResult, ...]
    first_difference: str = ""
    files: tuple[str, ...] = ()
    output: StageDifference | None = None
    output_shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    cause: Cause | None = None
    applied: bool = False
    notes: tuple[str, ...] = ()


class Environment(Record, frozen=True, kw_only=True):
    """Versions, machine, the flags that touch numerics, and the git commit of the directory the caller works in.

    `dirty` says that tracked files differ from the commit, or that Python files are there which git does not know.
    `commit` is empty and `dirty` None where there is no repository, or no git.
    """

    python: str
    platform: str
    processor: str
    packages: dict[str, str]
    devices: tuple[str, ...]
    threads: int
    flags: dict[str, str]
    commit: str = ""
    dirty: bool | None = None


class Verification(Record, frozen=True, kw_only=True):
    """The whole answer. Serialises to `result.json`; nothing in it refers to a tensor or a model."""

    verdict: Verdict
    reason: str
    criteria: tuple[Criterion, ...]
    coverage: Coverage
    first_divergence: PairResult | None
    culprits: tuple[PairResult, ...]
    cells: tuple[CellResult, ...]
    output: OutputAgreement | None
    baseline: ModelInfo
    candidate: ModelInfo
    weights: WeightsInfo
    inputs: InputInfo
    seed: int | None
    environment: Environment
    command: str
    seconds: float
    created: str
    policy: str = "strict"
    notes: tuple[str, ...] = ()
    static: tuple[StaticDifference, ...] = ()
    steps: tuple[Step, ...] = ()
    preprocessing: Preprocessing | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def deciding_cell(self) -> CellResult:
        """The first cell that gave the verdict: the one that diverged, or the first numerics cell on a match."""
        for cell in self.cells:
            if cell.verdict is self.verdict and self.verdict is not Verdict.MATCH:
                return cell
        ran = [cell for cell in self.cells if cell.verdict is not Verdict.SKIPPED] or self.cells
        return next((cell for cell in ran if cell.role == "numerics"), ran[0])

    @property
    def layers(self) -> tuple[PairResult, ...]:
        """All pair results of the deciding cell, in execution order."""
        return self.deciding_cell.layers

    def to_frame(self) -> pd.DataFrame:
        """All pair results of all cells as a table, one row a pair and cell (see `verifier.frames`)."""
        from verifier.frames import to_frame  # noqa: PLC0415 - pandas takes a second to import

        return to_frame(self)

    def save(self, directory: str | PathLike[str]) -> None:
        """Write `result.json`, `layers.csv`, `report.html` and `summary.md` into `directory`, all of them or none.

        Raises:
            OutputError: The directory cannot be written.
        """
        from verifier.saving import save  # noqa: PLC0415 - rendering is only needed here

        save(self, directory)


def to_builtins(record: Record) -> Any:
    """`record` as dicts, lists, strings and numbers that strict JSON can hold: NaN becomes "nan", infinity "inf"."""
    return _spell_nonfinite(msgspec.to_builtins(record))


def _spell_nonfinite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):  # noqa: PLR0124
        return str(value)
    if isinstance(value, dict):
        return {key: _spell_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spell_nonfinite(item) for item in value]
    return value
