"""What a result says of its cells: the verdict over all, and where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from verifier.judge.criteria import evaluate
from verifier.judge.verdicts import main_cell, overall, with_probes
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.judge.policy import Policy
    from verifier.records import CellResult, Coverage, Criterion, OutputAgreement, PairResult, Probe


class Conclusion(NamedTuple):
    """The fields of a result that follow from its cells and what they cover."""

    verdict: Verdict
    reason: str
    criteria: tuple[Criterion, ...]
    coverage: Coverage
    first_divergence: PairResult | None
    culprits: tuple[PairResult, ...]
    cells: tuple[CellResult, ...]
    output: OutputAgreement | None


def concluded(
    policy: Policy, cells: Sequence[CellResult], covered: Coverage, probes: Sequence[Probe] = ()
) -> Conclusion:
    """The verdict, the criteria, and the first cell that diverged with what it blames."""
    main = main_cell(cells)
    criteria = evaluate(policy, main.output, main.layers, cells)
    verdict, reason = with_probes(policy, *overall(policy, cells, criteria, covered), probes)
    deciding = next((cell for cell in cells if cell.verdict is Verdict.DIVERGED), None)
    return Conclusion(
        verdict,
        reason,
        criteria,
        covered,
        deciding.first_divergence if deciding else None,
        deciding.culprits if deciding else (),
        tuple(cells),
        main.output,
    )
