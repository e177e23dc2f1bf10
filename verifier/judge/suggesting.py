"""The tightest policy by which a saved result passes, as TOML: limits just above what was measured, none approved."""

from __future__ import annotations

import json
import math
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from verifier.errors import UsageError
from verifier.judge.criteria import deciding
from verifier.judge.excess import limit, within
from verifier.judge.policy import NAMED, STRICT, Policy
from verifier.judge.rejudging import judge_again
from verifier.judge.verdicts import AS_GIVEN
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from verifier.records import CellResult, PairResult, Result

_KEYS = {
    "output MSE": "output_mse",
    "Pearson of class probabilities": "pearson_probabilities",
    "largest layer MSE": "layer_mse",
    "top-1 agreement": "top1_agreement",
    "mean KL divergence of the classes": "kl_mean",
    "largest logit error": "logit_error",
}
_ORACLE = ("total", "intrinsic", "systematic")
_DIGITS = 2
_WHILE = timedelta(days=90)  # that a suggested waiver counts
_FEW = 3  # sites from which on a pattern reads better than their names


def suggested(result: Result, policy: Policy) -> tuple[str, str]:
    """A policy by which the result passes, and why there is none (empty where there is one).

    Of the policy given only what keeps the result from passing is loosened, site by site, to what was measured,
    rounded up to two digits; the least coverage, and criteria that decide, are set to what was measured.

    Args:
        result: What was measured.
        policy: Where to begin from; its own budgets and waivers are left out.
    """
    bare = Policy(
        **{
            name: getattr(policy, name)
            for name in policy.__struct_fields__
            if name not in ("budgets", "waivers")
        }
    )
    judged = judge_again(result, bare)
    lines = [
        f"# The tightest policy beside {json.dumps(bare.name)} by which this result passes. Nothing is approved:",
        "# every figure is what was measured. Give each budget its reason, or mend the candidate.",
        *_estimates(judged),
        *_waivers(judged, bare),
        *_constants(judged, bare),
    ]
    if not (bare.criteria_decide or bare.task_decides):
        for cell in judged.cells:
            lines += _budgets(cell, result)
    text = "\n".join(lines) + "\n"
    again = judge_again(result, Policy.of(tomllib.loads(text), "the suggestion", "suggested"))
    return text, "" if again.verdict.passed else _why(again)


def _estimates(judged: Result) -> Iterator[str]:
    if any(row.total is not None and row.total.interval is not None for row in judged.layers):
        yield "# Of an estimate from a recording it is the lower end of the 95 % interval, by which it is judged."


def _waivers(judged: Result, bare: Policy) -> Iterator[str]:
    """The same end with a waiver a fault, as comments, where there are few and that is the whole of it."""
    faults = {
        row.candidate or row.baseline: row
        for row in sorted(
            (row for cell in judged.cells for row in cell.culprits),
            key=lambda row: row.cause is not None and row.cause.confirmed,
        )
    }
    if judged.verdict is not Verdict.DIVERGED or not 0 < len(faults) <= _FEW:
        return
    day = datetime.now(UTC).date() + _WHILE
    lines = []
    for row in faults.values():
        lines += ["[[waivers]]", *([f"model = {json.dumps(judged.model)}"] if judged.model else [])]
        lines.append(f"site = {json.dumps(row.baseline or row.candidate)}")
        if row.cause is not None and row.cause.confirmed:
            codes = sorted({row.cause.code, *row.cause.also})
            lines.append(f"cause = {json.dumps(codes[0] if len(codes) == 1 else codes)}")
        lines += ['reason = "write here why it may stay"', f"expires = {day}"]
    try:
        rules = Policy.of(tomllib.loads("\n".join(lines)), "the suggestion", "suggested")
    except UsageError:  # a name that reads as a pattern
        return
    waived = judge_again(judged, msgspec.structs.replace(bare, waivers=rules.waivers))
    if waived.verdict.passed:
        yield "# In the place of all budgets below, waivers of these faults alone do, whatever their size:"
        yield from (f"#   {line}" for line in lines)
    elif judged.certificate is not None:
        yield "# A waiver of the fault may do instead, with a live baseline: behind a recording's first divergence no"
        yield "# site is judged alone, so that none is waived along with it."


def _why(again: Result) -> str:
    """What no number can let pass."""
    if again.verdict is not Verdict.DIVERGED or not again.culprits:
        return again.reason
    first = again.culprits[0]
    cause = f": {first.cause.summary} ({first.cause.code})" if first.cause else ""
    return f"what is wrong at {first.baseline or first.candidate} is no error of a size{cause}; a waiver can name it"


def _constants(judged: Result, policy: Policy) -> Iterator[str]:
    base = NAMED.get(policy.name, STRICT)
    if base is not STRICT:
        yield f"base = {json.dumps(base.name)}"
    found = {
        name: getattr(policy, name)
        for name in policy.__struct_fields__
        if name != "name" and getattr(policy, name) != getattr(base, name)
    }
    covered = min(judged.coverage.baseline_share, judged.coverage.candidate_share)
    found["minimum_coverage"] = max(math.floor(covered * 100), 1) / 100  # 0 would ask for nothing
    for each in deciding(policy, judged.criteria):
        if math.isfinite(each.value) and each.name in _KEYS:
            up = each.comparison[0] == "<"
            measured = _rounded(each.value, up=up, past=each.comparison in ("<", ">"))
            before = found.get(_KEYS[each.name])
            worse = max if up else min
            seen = before is not None and each.cell  # the task is judged in every cell
            found[_KEYS[each.name]] = worse(Decimal(str(before)), measured) if seen else measured
    for name, value in found.items():
        yield f"{name} = {str(value).lower()}"


def _budgets(cell: CellResult, result: Result) -> Iterator[str]:
    """Budgets for what is beyond its own in a cell, sites that need the same together."""
    groups: dict[tuple[tuple[str, Decimal], ...], list[str]] = {}
    for row in cell.layers:
        needed = _needed(row)
        name = row.baseline or row.candidate
        if needed and name is not None and cell.verdict is Verdict.DIVERGED:
            groups.setdefault(tuple(needed.items()), []).append(name)
    for limits, sites in groups.items():
        yield ""
        yield "[[budgets]]"
        if result.model:
            yield f"model = {json.dumps(result.model)}"
        yield f"site = {_sites(sites, cell.layers)}"
        yield f"cell = {json.dumps(cell.name)}"
        yield from (f"{name} = {str(value).lower()}" for name, value in limits)
        day = result.created.partition("T")[0]
        yield f'reason = "measured on {day}, not approved: write here why this much is right"'


def _sites(names: Sequence[str], rows: Sequence[PairResult]) -> str:
    """The names as TOML: a pattern where one is of exactly these sites."""
    unique = list(dict.fromkeys(names))
    parts = [name.split(".") for name in unique]
    common = 0
    while all(len(each) > common + 1 and each[common] == parts[0][common] for each in parts):
        common += 1
    if len(unique) >= _FEW and common:
        pattern = ".".join([*parts[0][:common], "*"])
        fitting = {
            row.baseline or row.candidate
            for row in rows
            if any(name and fnmatchcase(name, pattern) for name in (row.baseline, row.candidate))
        }
        if fitting == set(unique):
            return json.dumps(pattern)
    return json.dumps(unique[0]) if len(unique) == 1 else json.dumps(unique)


def _needed(row: PairResult) -> dict[str, Decimal]:
    """The limits that what was measured at a row is beyond, just above it; nothing where no number would help."""
    if row.budget is None or row.budget.total == 0 or row.budget.rule == AS_GIVEN or row.unread:
        return {}
    found: dict[str, float] = {}
    for name, error, alone in (
        ("total", row.total, False),
        ("intrinsic", row.intrinsic, True),
        ("intrinsic", row.replayed, True),
    ):
        if error is not None and not within(error, limit(row, intrinsic=alone)):
            measured = error.nrmse if error.interval is None else error.interval.nrmse[0]
            found[name] = max(found.get(name, 0.0), measured)
    for kind in _ORACLE:
        distance: float | None = None if row.accuracy is None else getattr(row.accuracy, f"candidate_{kind}")
        allowed = getattr(row.budget, f"oracle_{kind}")
        if distance is not None and allowed is not None and not distance <= allowed:
            found[f"oracle_{kind}"] = distance
    return {name: _rounded(value, up=True) for name, value in found.items() if math.isfinite(value)}


def _rounded(value: float, *, up: bool, past: bool = False) -> Decimal:
    """A number of two digits that is not below (or, not `up`, not above) the one measured; `past` it if need be."""
    exact = Decimal(repr(value))  # as it will be read again
    unit = Decimal(1).scaleb((exact.adjusted() if exact else -15) - _DIGITS + 1)
    if not up:  # shares and correlations, of which the last digits tell
        unit = min(unit, Decimal(1).scaleb((1 - exact).adjusted() - _DIGITS + 1)) if exact < 1 else unit
    near = exact.quantize(unit, ROUND_CEILING if up else ROUND_FLOOR)
    if past and near == exact:
        near += unit if up else -unit
    return near.normalize()
