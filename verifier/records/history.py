"""What a history keeps of runs, and what it tells of them."""

from __future__ import annotations

from verifier.records.base import Record, Verdict


class RecordedRun(Record, frozen=True, kw_only=True):
    """One run as a history keeps it: when, on which commit, of what, and how it ended.

    `number` is its number in the history, from 1. `commit` and `branch` are empty, and `dirty` is None, where there
    was no repository. `weights` is the mode, `inputs` their description; the digests are those of the result. `first`
    is where the models first part, `cause` the sentence about the first culprit and `code` its cause's code; all are
    empty where there is none.
    """

    number: int
    created: str
    commit: str
    dirty: bool | None
    branch: str
    baseline: str
    candidate: str
    weights: str
    inputs: str
    seed: int | None
    policy: str
    inputs_digest: str
    weights_digest: str
    torch: str
    processor: str
    devices: str
    command: str
    verdict: Verdict
    reason: str
    first: str
    cause: str
    code: str
    seconds: float

    @property
    def ground(self) -> tuple[object, ...]:
        """What must be the same for figures of two runs to be of one series."""
        return (self.baseline, self.candidate, self.weights, self.inputs, self.seed, self.policy)

    @property
    def network(self) -> str:
        """Both models, in words."""
        return f"{self.candidate} against {self.baseline}"


class Point(Record, frozen=True, kw_only=True):
    """What one run measured at one site in one cell: relative errors (NRMSE), what was allowed, the status.

    `row` is where it stands among the cell's rows. Figures are None where they were not measured.
    """

    row: int
    status: str
    total: float | None
    intrinsic: float | None
    total_mse: float | None
    intrinsic_mse: float | None
    allowed_total: float | None
    allowed_intrinsic: float | None


class Change(Record, frozen=True, kw_only=True):
    """Where a site's error first is another than in the run before on the same line, `before`.

    `kind` is `intrinsic` or `total`, the error that changed, or `partner` where the site lost or found its partner.
    `rounding` says that it is inside its budget before and after: the same function in other arithmetic. `inherited`,
    that its intrinsic error is known and did not change, or is inside its budget wherever the total is not.
    `culprit`, that it is one now or was one before. `grounds` says in what else the two runs differ.
    """

    run: int
    before: int
    cell: str
    site: str
    op: str
    kind: str
    was: float | None
    now: float | None
    status: str
    row: int
    rounding: bool = False
    inherited: bool = False
    culprit: bool = False
    grounds: tuple[str, ...] = ()


class SiteLine(Record, frozen=True, kw_only=True):
    """A site in a cell over runs, by their numbers; runs that did not measure it are left out."""

    cell: str
    site: str
    op: str
    points: tuple[tuple[int, Point], ...]


class Timeline(Record, frozen=True, kw_only=True):
    """All runs of one pair of models on one ground, in order, and what changed between them.

    `befores` has, of each run, the one before it on its own line, by their numbers; the first of a line has none.
    `verdicts` has the runs whose verdict is another than that one's. `lines` are of the sites asked for.
    """

    runs: tuple[RecordedRun, ...]
    befores: dict[int, int]
    changes: tuple[Change, ...]
    verdicts: tuple[int, ...]
    lines: tuple[SiteLine, ...] = ()


class History(Record, frozen=True, kw_only=True):
    """What a history holds of the runs asked for; `by_commit` says that they are in the order of their commits.

    But for `unknown` of them, whose commits git does not know here: they stand as they were recorded. `listed` are
    the numbers of the runs to be listed: timelines reach beyond them.
    """

    file: str
    by_commit: bool
    unknown: int
    timelines: tuple[Timeline, ...]
    listed: tuple[int, ...]


class Trial(Record, frozen=True, kw_only=True):
    """One commit that a bisection tried: `match`, `diverged` or, where it could not be told, `skipped` and why."""

    commit: str
    subject: str
    verdict: Verdict
    said: str
    code: int


class Bisection(Record, frozen=True, kw_only=True):
    """How a bisection ended.

    `commits` are those that may be the first bad one, oldest first: one, unless others could not be tried. `trials`
    has what was tried, the two ends first; `between` counts the commits from the good end to the bad one. `author`
    and `date` are the bad commit's where it is known. `changed` are the files it touches.
    """

    good: str
    bad: str
    between: int
    commits: tuple[str, ...]
    subjects: tuple[str, ...]
    author: str
    date: str
    changed: tuple[str, ...]
    trials: tuple[Trial, ...]
