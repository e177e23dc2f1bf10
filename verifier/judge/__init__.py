"""From numbers to verdicts: cells, budgets, policies and who is to blame."""

from verifier.judge.budgets import numerics_budget, semantics_budget
from verifier.judge.coverage import Region, coverage, many, regions
from verifier.judge.criteria import evaluate
from verifier.judge.excess import excess, less_accurate, numeric
from verifier.judge.hardware import hardware
from verifier.judge.low_precision import range_notes, with_precision
from verifier.judge.policy import CRITERIA, STRICT, Policy
from verifier.judge.rejudging import judge_again
from verifier.judge.rows import PairErrors, bare_rows, ends
from verifier.judge.sources import with_sources
from verifier.judge.statuses import Judged, differs, judge_rows
from verifier.judge.verdicts import left_open, main_cell, overall, too_thin, with_probes

__all__ = [
    "CRITERIA",
    "STRICT",
    "Judged",
    "PairErrors",
    "Policy",
    "Region",
    "bare_rows",
    "coverage",
    "differs",
    "ends",
    "evaluate",
    "excess",
    "hardware",
    "judge_again",
    "judge_rows",
    "left_open",
    "less_accurate",
    "main_cell",
    "many",
    "numeric",
    "numerics_budget",
    "overall",
    "range_notes",
    "regions",
    "semantics_budget",
    "too_thin",
    "with_precision",
    "with_probes",
    "with_sources",
]
