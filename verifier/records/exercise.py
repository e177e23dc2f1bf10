"""What a verification exercised, what differs as written but not in numbers, and what probes showed."""

from __future__ import annotations

from verifier.records.base import Record, Verdict


class InputRange(Record, frozen=True, kw_only=True):
    """The smallest and the largest finite number of one input tensor; None where it has none."""

    name: str
    dtype: str
    low: float | None
    high: float | None


class Unexercised(Record, frozen=True, kw_only=True):
    """Something that differs as written and showed in no number.

    `kind` is that of the static difference, or `training` for what acts in training mode alone. `summary` says what
    differs, `why` what would show it, as far as that is known. `baseline` and `candidate` say where.
    """

    kind: str
    baseline: str | None
    candidate: str | None
    summary: str
    why: str


class Exercise(Record, frozen=True, kw_only=True):
    """What both models were run on.

    `mode` is `evaluation`, `training` or `mixed`; `samples` holds the numbers of samples that went through at once;
    `alone` counts the sites that are written otherwise than the baseline's and were run alone on further inputs.
    """

    mode: str
    samples: tuple[int, ...]
    inputs: tuple[InputRange, ...]
    alone: int = 0
    unexercised: tuple[Unexercised, ...] = ()


class Probe(Record, frozen=True, kw_only=True):
    """Both models run on inputs that were drawn on purpose, in float64.

    `name` says what was drawn. `verdict` is `match`, `diverged`, or `skipped` where the baseline cannot be run so or
    gives no finite number. `site` is the first pair (or output) that differs, `error` its relative error (NRMSE) and
    `allowed` what it may be; `reason` says why nothing was compared, or how the candidate failed.
    """

    name: str
    verdict: Verdict
    site: str | None = None
    error: float | None = None
    allowed: float | None = None
    reason: str = ""
