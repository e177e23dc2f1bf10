"""What quantisation costs: layer by layer, and which layers to keep in float."""

from __future__ import annotations

from typing import Literal

from verifier.records.base import Record, Verdict


class QuantisedLayer(Record, frozen=True, kw_only=True):
    """A layer that computes with rounded numbers.

    `name` leaves it in float where the model is quantised; `site` is its site in the candidate, empty if it has
    none. `sqnr_db` is the signal in its result over the error there (in decibels) where it alone is quantised,
    `sqnr_total_db` where everything is; infinite without an error. `saves` is the share of the outputs' error (its
    mean square) that goes away with this layer in float, by a run: below 0 where the error grows. `clipped` is the
    share of its weight that lies beyond the range, `used` how much of the range the weight fills; both are None
    without a weight in few bits that the baseline has. `input_clipped` is the share of what it reads that lies
    beyond the range of its quantiser on these inputs, of several tensors the largest; None where none is rounded to
    fixed numbers. `kept` says whether it is among the layers to keep in float.
    """

    name: str
    site: str
    op: str
    sqnr_db: float
    sqnr_total_db: float
    saves: float
    clipped: float | None = None
    used: float | None = None
    input_clipped: float | None = None
    kept: bool = False


class QuantiserFault(Record, frozen=True, kw_only=True):
    """A quantiser that is not one of what it is given: which layer reads it, what it rounds, and what is wrong."""

    layer: str
    site: str
    tensor: str
    code: str
    said: str
    evidence: tuple[str, ...] = ()


class KeptInFloat(Record, frozen=True, kw_only=True):
    """The layers to keep in float so that what is asked for is met.

    `measure` is `top-1` (the share of samples whose class changes) or `error` (the relative error of the outputs,
    NRMSE, or the share of whole numbers that change); `limit` is what it may be, `before` what it is with all
    quantised, `after` with `layers` in float, by a run with exactly these. `exclusion` is where a user gives the
    names. `samples` is how many were run, `runs` how many sets were tried.
    """

    asked: str
    measure: Literal["top-1", "error"]
    limit: float
    before: float
    after: float
    layers: tuple[str, ...]
    exclusion: str
    samples: int
    runs: int

    @property
    def met(self) -> bool:
        """Whether what was asked for is met, as far as the samples tell."""
        return self.after <= self.limit

    @property
    def doubt(self) -> str:
        """Why the samples do not tell; empty where they do."""
        if self.measure != "top-1" or not self.samples or self.limit * self.samples >= 1:
            return ""
        return (
            f"{self.limit:.3g} of {self.samples} samples is less than one: none may change, and that none of these "
            f"does says no more than that about {min(1, 3 / self.samples):.2g} of others may"
        )


class Quantisation(Record, frozen=True, kw_only=True):
    """A quantised candidate against what it is with nothing rounded.

    `kind` is what it is. `undone` says whether it is the baseline's function with all quantisers undone, by the
    ordinary strict comparison. `error` is the relative error (NRMSE) of its outputs as it is shipped, or by `measure`
    the share of the whole numbers it returns that change. `layers` are in order of execution, `faults` quantisers
    that are wrong.
    """

    kind: str
    undone: Verdict
    error: float
    layers: tuple[QuantisedLayer, ...]
    faults: tuple[QuantiserFault, ...] = ()
    kept: KeptInFloat | None = None
    measure: Literal["nrmse", "changed"] = "nrmse"
