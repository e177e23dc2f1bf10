"""What was found at one pair of sites."""

from __future__ import annotations

from typing import Literal

from verifier.records.base import Record, Status


class Interval(Record, frozen=True, kw_only=True):
    """Of figures that were estimated from a recording: the 95 % interval of each, its lower and upper end.

    `one_minus_pearson` is None where r is NaN.
    """

    mse: tuple[float, float]
    nrmse: tuple[float, float]
    one_minus_pearson: tuple[float, float] | None = None


class Comparison(Record, frozen=True, kw_only=True):
    """How far the candidate's tensor lies from the baseline's at one pair.

    Every figure is dimensionless or in the tensor's own unit, computed in float64; `verifier.metrics` gives
    the formulas and what each says for constant, empty and non-finite tensors.

    With an `interval` the figures are estimates (`verifier.certificates`); the largest differences are then NaN.
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
    interval: Interval | None = None

    def within(self, limit: float) -> bool:
        """Whether the relative error is inside a limit; NaN and disagreeing non-finite values never are.

        Of an estimate the lower end of its interval is asked: what lies beyond the limit lies there surely.
        """
        if self.nonfinite_mismatched:
            return False
        error = self.nrmse if self.interval is None else self.interval.nrmse[0]
        return self.elements == 0 or self.max_abs == 0 or error <= limit


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


class Limits(Record, frozen=True, kw_only=True):
    """The limits of a budget, as `Budget` has them."""

    total: float
    intrinsic: float
    oracle_total: float | None = None
    oracle_intrinsic: float | None = None
    oracle_systematic: float | None = None


class Budget(Record, frozen=True, kw_only=True):
    """The error a pair is allowed in a cell: limits on `metric`, and the rule that gave them.

    `noise_total` and `noise_intrinsic` are the baseline's own distances from the float64 oracle at this pair,
    which the limits were derived from; None where they were not measured, and of two recordings what rounding
    explains. `oracle_total`, `oracle_intrinsic` and `oracle_systematic` limit the candidate's distances from the
    oracle (`Accuracy`); `reduction` is the number of terms that are summed for one element, which they grow with;
    `accumulated` is the largest such number here or above, which `oracle_total` grows with. `instead` holds the
    rule's own limits, where a policy's stand in their place.
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
    instead: Limits | None = None


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


UNEXPLAINED = "unexplained"
"""The code of a cause of which nothing is known but the error's shape."""


class Cause(Record, frozen=True, kw_only=True):
    """Why a culprit is wrong, as far as it is known.

    `code` is stable (`verifier.diagnose` lists the families); `unexplained` where nothing was found. `confirmed`
    says that with this one edit of the candidate's own calls the site's error, on the baseline's inputs, fell inside
    its budget. `also` holds the codes of further causes at the same site, `remedy` what to change in the candidate.
    """

    code: str
    summary: str
    confirmed: bool
    evidence: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def family(self) -> str:
        """What sort of thing is wrong, the code's first word: `conv`, `batchnorm`, `weight`, `input`, `precision`."""
        return self.code.partition("-")[0]

    @property
    def status(self) -> Literal["confirmed", "located", "unexplained"]:
        """`confirmed`, `located` where something differs that was not shown to be why, or `unexplained`."""
        return "confirmed" if self.confirmed else "unexplained" if self.code == UNEXPLAINED else "located"

    @property
    def fix(self) -> str:
        """What to change in the candidate."""
        return self.remedy


class Excited(Record, frozen=True, kw_only=True):
    """Where a pair that is written otherwise on its two sides parts, though it does not on the given inputs.

    Both sides were run alone, in float64, on the baseline's tensors as `inputs` says (`scaled by 1000`); `error` is
    what they are apart there, `allowed` the largest absolute difference that rounding explains.
    """

    inputs: str
    error: Comparison
    allowed: float


class Source(Record, frozen=True, kw_only=True):
    """A line of a model's program: the innermost that was running when a call was made.

    `file` is relative to the working directory where it lies below it. Elsewhere it is a package's path
    (`torchvision/models/resnet.py`), and for a file of no package its name: no record says where somebody's home is.
    `function` is qualified (`Bottleneck.forward`).
    """

    file: str
    line: int
    function: str


NO_SITES = frozenset({"input", "output", "state", "call"})
"""What stands in the place of an operator in rows that are no sites."""


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

    `excited` is there where the two sides part on other inputs alone. `follows` is the row, by its index, that this
    one's difference comes from: what undoes it there undoes it here, or overwriting it there is what makes it.
    `unread` says that they differ only in what nothing behind them reads, which is no fault.

    The sources are the lines that made the two tensors, at the first divergence and in rows that are not `ok` and do
    more than carry; None where there is no such line, as in what FX or export has generated. For a site without a
    partner, the other side's is the line that reads what should have come from there.

    `placement` says how several processes hold the candidate's tensor between them, as its numbers tell.
    `sample` is what its data calls the sample in which the total error is largest, where samples were streamed.
    `stage` says where a deployed form went wrong at a culprit: `translation` (its graph says something else),
    `fusion` (an optimised level of it does), `kernel` (an operator is less accurate than its dtype explains); empty
    elsewhere.

    A row that is no site has the word for what it is in the place of an operator (`kind`); `position` is then which
    of the model's inputs or outputs it is.
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
    excited: Excited | None = None
    follows: int | None = None
    unread: bool = False
    position: int | None = None
    stage: Literal["", "translation", "fusion", "kernel", "quantisation"] = ""
    baseline_source: Source | None = None
    candidate_source: Source | None = None
    sample: str = ""
    placement: str = ""

    @property
    def kind(self) -> str:
        """`input`, `output`, `state` (what the run has written), `call` (what a further one returned) or `site`."""
        return self.op if self.op in NO_SITES else "site"

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
