"""Scripts for the culprits of the cell that decides, from the models as they stand on the bench."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.bench.subject import SIDES
from verifier.cells import ORACLE, Cell
from verifier.environment import tf32
from verifier.models.casting import made_in
from verifier.models.compiled import interpreted
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.bench.bench import Bench
    from verifier.diagnose.repros import Repro
    from verifier.records import CellResult, PairResult


def reproduced(bench: Bench, results: Sequence[CellResult]) -> tuple[tuple[Repro, ...], tuple[str, ...]]:
    """A script for each culprit of the first cell that diverged, and a sentence for each that has none.

    Args:
        bench: The two models on a few samples, in float64.
        results: What every cell has found.
    """
    deciding = next((result for result in results if result.verdict is Verdict.DIVERGED), None)
    if deciding is None or not deciding.culprits:
        return (), ()
    from verifier.diagnose.repros import Setting, repros  # noqa: PLC0415 - only these scripts need it

    cell = ORACLE if deciding.role == "semantics" else Cell.parse(deciding.name)
    around = f'torch.autocast("cpu", dtype=torch.{cell.dtype})' if cell.autocast else ""
    setting = Setting(cell.name, cell == ORACLE, made_in(cell), around)
    with interpreted(), tf32(allowed=cell.dtype == "tf32"):
        found = repros(
            bench.alignment, deciding.layers, deciding.culprits, bench.at(cell=cell).lanes, setting
        )
    names = {culprit.index: _named(culprit) for culprit in deciding.culprits}
    return tuple(found.scripts[index] for index in names if index in found.scripts), tuple(
        f"--repro has no script for {name}: {found.reasons[index]}"
        for index, name in names.items()
        if index in found.reasons
    )


def _named(culprit: PairResult) -> str:
    side = SIDES[1] if culprit.candidate else SIDES[0]
    return f"the {side}'s {culprit.candidate or culprit.baseline or culprit.op}"
