"""What was exercised and what was not, each in one line, and what probes showed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import grouping, sentences, wording
from verifier.records import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import InputRange, Probe, Result, Unexercised

_MODES = {"evaluation": "evaluation mode", "training": "training mode", "mixed": "both modes in one model"}
_TOLD = 3  # differences that one line holds; result.json has them all


def done(verification: Result) -> str:
    """What both models were run on, in one line; empty where that was not recorded."""
    found = verification.exercise
    if found is None:
        return ""
    sizes = " and ".join(f"{size:,}" for size in found.samples) or "no"
    said = [
        _MODES.get(found.mode, found.mode),
        f"{sizes} {'sample' if found.samples == (1,) else 'samples'} a call",
        *(_range(each) for each in found.inputs[:_TOLD]),
    ]
    if len(found.inputs) > _TOLD:
        said.append(f"{wording.counted(len(found.inputs) - _TOLD, 'further input')}")
    said += [f"{name}: {value}" for name, value in [*verification.inputs.settings.items()][:_TOLD]]
    said += [cell.name for cell in verification.cells if cell.verdict is not Verdict.SKIPPED]
    if found.alone:
        said.append(f"{wording.counted(found.alone, 'site')} written otherwise alone on further inputs")
    if verification.probes:
        said.append(f"{wording.counted(len(_run(verification)), 'probe')}, told below")
    return f"exercised: {', '.join(said)}"


def left(verification: Result) -> str:
    """What no number says anything of, in one line: what differs as written first; empty where nothing is known."""
    found = verification.exercise
    if found is None:
        return ""
    written = [each for each in found.unexercised if each.kind != "tensor"]  # those have a list of their own
    if grouping.nothing_in_common(verification):
        written = []
    alike: dict[tuple[str, str], list[Unexercised]] = {}
    for each in written:
        alike.setdefault((each.summary, each.why), []).append(each)
    said = [_together(each) for each in list(alike.values())[:_TOLD]]
    more = sum(map(len, list(alike.values())[_TOLD:]))
    if more:
        said.append(f"{more:,} more that differ as written, in result.json")
    if not _run(verification):
        other = {"evaluation": "training mode", "training": "evaluation mode"}.get(found.mode)
        calls, drawn = (
            ("third", " (--probe draws some)") if verification.certificate is None else ("first", "")
        )
        said.append(
            f"{f'{other}, ' if other else ''}gradients, calls after the {calls}, other numbers of samples, "
            f"other values{drawn}"
        )
    return f"not exercised: {'; '.join(said)}" if said else ""


def silent(verification: Result) -> tuple[str, ...]:
    """Weights and buffers that differ while no compared number depends on that: each on its own."""
    return tuple(map(difference, unreached(verification)))


def unreached(verification: Result) -> tuple[Unexercised, ...]:
    """What `silent` tells of."""
    found = verification.exercise
    return tuple(each for each in found.unexercised if each.kind == "tensor") if found else ()


def difference(each: Unexercised) -> str:
    """Something that differs as written and showed in no number: where, what, and what would show it."""
    return _together([each])


def _together(alike: Sequence[Unexercised]) -> str:
    """What differs in the same way at several sites, told once."""
    where = wording.some([each.candidate or each.baseline or "" for each in alike], _TOLD)
    return f"{where}: {alike[0].summary} ({alike[0].why})"


def probe(each: Probe) -> str:
    """What a probe showed."""
    if each.verdict is Verdict.SKIPPED:
        return f"skipped: {each.name}: {each.reason}"
    if each.verdict is Verdict.MATCH:
        return f"match: {each.name}"
    if each.site is None:
        return f"{each.verdict}: {each.name}: {each.reason}"
    measured = each.reason
    if each.error is not None:
        error, allowed = wording.figure(each.error), wording.figure(each.allowed)
        measured = f"{sentences.METRICS[sentences.DEFAULT_METRIC]} {error}, allowed {allowed}"
    where = f"first at {each.site}"
    return f"{each.verdict}: {each.name}: {where}, {measured}"


def _run(verification: Result) -> list[Probe]:
    return [each for each in verification.probes if each.verdict is not Verdict.SKIPPED]


def _range(each: InputRange) -> str:
    name = f"input {each.name}"
    if each.low is None or each.high is None:
        return f"{name} without a finite number"
    low, high = wording.figure(each.low), wording.figure(each.high)
    return f"{name} from {low} to {high} ({each.dtype})"


def lines(verification: Result) -> tuple[str, ...]:
    """Both, what was exercised first."""
    return tuple(filter(None, (done(verification), left(verification))))


def probes(verification: Result) -> tuple[str, ...]:
    """What every probe showed."""
    return tuple(map(probe, verification.probes))
