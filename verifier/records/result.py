"""The whole answer of a verification."""

from __future__ import annotations

from typing import Literal

from verifier.records.base import Record, Verdict
from verifier.records.cell_results import CellResult, OutputAgreement, Step
from verifier.records.circumstances import (
    CertificateInfo,
    Coverage,
    Environment,
    InputInfo,
    ModelInfo,
    Preprocessing,
    StaticDifference,
    WeightsInfo,
)
from verifier.records.exercise import Exercise, Probe
from verifier.records.pairs import PairResult
from verifier.records.quantisation import Quantisation
from verifier.records.stages import FormStage

SCHEMA_VERSION = 1

TASK = "budgets of the task"
"""Source of the criteria that are not published but a policy's own: what a difference may do to the classes."""


class Criterion(Record, frozen=True, kw_only=True):
    """A published acceptance criterion with what was measured; `passed` never decides alone.

    Where a policy judges the task, its budgets for that are criteria too; their `source` is `TASK`. They are
    evaluated in every numerics cell that ran, and `cell` names it; the published ones, whose `cell` is empty, in the
    first.
    """

    name: str
    value: float
    comparison: str
    limit: float
    passed: bool
    source: str = ""
    cell: str = ""

    @property
    def title(self) -> str:
        """What was measured, and in which cell where it is judged in several."""
        return f"{self.name} in {self.cell}" if self.cell else self.name


class Accepted(Record, frozen=True, kw_only=True):
    """What a policy accepts at one site of one cell, though it is beyond what rounding explains.

    `by` is `waiver` or `budget`, `pattern` the sites it is for as the policy has them, `reason` why, in the words of
    who wrote it. `expires` is a waiver's last day (ISO 8601), empty for budgets. `said` tells what was measured,
    `code` and `cause` why the site is wrong, as far as that is known.
    """

    by: Literal["waiver", "budget"]
    cell: str
    baseline: str | None
    candidate: str | None
    pattern: str
    reason: str
    said: str
    expires: str = ""
    code: str = ""
    cause: str = ""


class Result(Record, frozen=True, kw_only=True):
    """The whole answer. Serialises to `result.json`; nothing in it refers to a tensor or a model.

    `certificate` is there where a recording stood in the baseline's place. `accepted` is what a policy's budgets and
    waivers accept; culprits that are waived stand there alone. `stages` are those of deployed forms, in the order in
    which a runtime goes through them. `quantisation` is there where the candidate rounds to few bits. `model` is what
    a policy's file calls the two.
    """

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
    exercise: Exercise | None = None
    probes: tuple[Probe, ...] = ()
    certificate: CertificateInfo | None = None
    accepted: tuple[Accepted, ...] = ()
    model: str = ""
    stages: tuple[FormStage, ...] = ()
    quantisation: Quantisation | None = None
    schema_version: int = SCHEMA_VERSION

    @property
    def baseline_name(self) -> str:
        """The baseline as it was given: a recording's file where one stands in its place, else its specification."""
        source = "" if self.certificate is None else self.certificate.source
        return source or self.baseline.spec

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
