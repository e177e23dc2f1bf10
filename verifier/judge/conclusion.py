"""What a result says of its cells: the verdict over all, and where it comes from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from verifier.judge.accepting import accepting, told
from verifier.judge.criteria import evaluate
from verifier.judge.verdicts import beside_quantisation, main_cell, overall, with_probes
from verifier.records import Verdict, brief

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from verifier.judge.policy import Policy
    from verifier.records import (
        Accepted,
        CellResult,
        Coverage,
        Criterion,
        OutputAgreement,
        PairResult,
        Probe,
    )


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
    accepted: tuple[Accepted, ...]


def concluded(
    policy: Policy,
    cells: Sequence[CellResult],
    covered: Coverage,
    probes: Sequence[Probe] = (),
    today: date | None = None,
) -> Conclusion:
    """The verdict, the criteria, and the first cell that diverged with what it blames.

    `today` is the day that waivers are held against, by default this one (UTC).
    """
    cells, accepted = accepting(policy, cells, today or datetime.now(UTC).date())
    main = main_cell(cells)
    criteria = evaluate(policy, main.output, main.layers, cells)
    verdict, reason = with_probes(policy, *overall(policy, cells, criteria, covered), probes)
    wrong = beside_quantisation(cells) if policy.task_decides else None
    if wrong is not None and verdict is not Verdict.INCONCLUSIVE:
        allowed = verdict is Verdict.MATCH
        said = f"what becomes of the classes is allowed, but {wrong}" if allowed else f"{wrong}; {reason}"
        verdict, reason = Verdict.DIVERGED, brief(said)
    if verdict is Verdict.MATCH and accepted:
        verdict, reason = Verdict.ACCEPTED, brief(f"{accepted[0].cell}: {told(accepted)}")
    diverged = (cell for cell in cells if cell.verdict is Verdict.DIVERGED)
    resting = (cell for cell in cells if cell.verdict is Verdict.ACCEPTED)
    deciding = next(diverged, None) or next(resting, None)
    return Conclusion(
        verdict,
        reason,
        criteria,
        covered,
        deciding.first_divergence if deciding else None,
        deciding.culprits if deciding else (),
        tuple(cells),
        main.output,
        accepted,
    )
