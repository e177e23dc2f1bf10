"""From numbers to verdicts: cells, budgets, policies and who is to blame."""

from verifier.judge.budgets import numerics_budget, semantics_budget
from verifier.judge.conclusion import concluded
from verifier.judge.coverage import Region, coverage, many, regions
from verifier.judge.excess import excess, less_accurate, near_limit, numeric
from verifier.judge.hardware import hardware, summed_up
from verifier.judge.low_precision import range_notes, with_precision
from verifier.judge.policy import CRITERIA, STRICT, Policy
from verifier.judge.recorded import left_between, recorded_budget, roundings
from verifier.judge.rejudging import judge_again
from verifier.judge.rows import PairErrors, bare_rows, ends
from verifier.judge.sources import with_sources
from verifier.judge.statuses import Judged, differs, judge_rows
from verifier.judge.verdicts import QUANTISED, left_open, overall, too_thin

__all__ = [
    "CRITERIA",
    "QUANTISED",
    "STRICT",
    "Judged",
    "PairErrors",
    "Policy",
    "Region",
    "bare_rows",
    "concluded",
    "coverage",
    "differs",
    "ends",
    "excess",
    "hardware",
    "judge_again",
    "judge_rows",
    "left_between",
    "left_open",
    "less_accurate",
    "many",
    "near_limit",
    "numeric",
    "numerics_budget",
    "overall",
    "range_notes",
    "recorded_budget",
    "regions",
    "roundings",
    "semantics_budget",
    "summed_up",
    "too_thin",
    "with_precision",
    "with_sources",
]
