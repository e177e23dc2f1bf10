"""Trying what may be wrong: a cause is confirmed when the error falls inside its budget with it undone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from torch import Tensor

from verifier.align.signatures import loose
from verifier.diagnose import codes
from verifier.diagnose.neighbourhood import Neighbourhood, distance
from verifier.diagnose.preparation import cause_of_preparing
from verifier.diagnose.suspects import Suspect, settings, suspects
from verifier.graph.operators import IRRELEVANT, MOVES, canonical
from verifier.recognise.pattern import describe
from verifier.records import UNEXPLAINED, Cause, PairResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from verifier.graph import KeptCall, Site


def cause_of_site(
    call: KeptCall,
    baseline: KeptCall,
    output: int,
    wanted: Tensor,
    given: Tensor | None,
    others: Mapping[str, Tensor],
    limit: float,
) -> Cause:
    """Why a call gives something else than the baseline's on the same inputs.

    Args:
        call: The candidate's call, on the baseline's inputs.
        baseline: The baseline's call.
        output: Which of the call's tensors is meant.
        wanted: The baseline's tensor.
        given: The candidate's on these inputs; None if the call cannot be made on them.
        others: The baseline's parameters and buffers by name.
        limit: The largest relative error (NRMSE) that is none.
    """
    found = suspects(call, baseline, others)
    errors = {suspect: _error([suspect], call, output, wanted) for suspect in found}
    for suspect, error in errors.items():
        if error <= limit:
            return _confirmed(suspect, (), _before(given, wanted), error)
    together = _error(found, call, output, wanted) if found else float("inf")
    if together <= limit:
        needed = [
            suspect
            for suspect in found
            if _error([each for each in found if each is not suspect], call, output, wanted) > limit
        ] or found
        first, *rest = sorted(needed, key=lambda suspect: not suspect.code.endswith(("-missing", "-extra")))
        return _confirmed(first, rest, _before(given, wanted), together)
    if not found:
        return unexplained(given, wanted)
    shape = () if given is None else describe(given, wanted)
    first, *rest = sorted(found, key=lambda suspect: errors[suspect])
    return Cause(
        code=first.code,
        summary=f"{first.summary}, which explains it only in part",
        confirmed=False,
        evidence=(*first.evidence, *shape),
        also=tuple(suspect.code for suspect in rest),
        remedy=first.remedy,
    )


def composed(row: PairResult, baseline: Neighbourhood, candidate: Neighbourhood) -> Cause:
    """The cause where one side has several operators for what the other makes in fewer."""
    made, expected = (
        _listed([*_ops(side), *(() if side.site is None else (side.site.op,))])
        for side in (candidate, baseline)
    )
    return Cause(
        code="region-different",
        summary=f"it makes in {made} what the baseline makes in {expected}, and something else comes out",
        confirmed=False,
        evidence=(
            f"both were given the same, and {row.candidate} differs",
            *_settings_apart(baseline, candidate),
        ),
        remedy=f"compare {made} with {expected}",
    )


def _settings_apart(baseline: Neighbourhood, candidate: Neighbourhood) -> list[str]:
    """Where an operator that stands once on both sides has other settings."""
    calls = [(*side.between, *_itself(side)) for side in (baseline, candidate)]
    counts = [Counter(site.op for site, _ in each) for each in calls]
    b, c = (
        {site.op: settings(call) for site, call in each if counts[0][site.op] == counts[1][site.op] == 1}
        for each in calls
    )
    return [
        f"{op}: {name} is {canonical(value)}, the baseline's {canonical(b[op][name])}"
        for op, found in c.items()
        for name, value in found.items()
        if name in b.get(op, {}) and canonical(value) != canonical(b[op][name])
    ]


def _itself(side: Neighbourhood) -> list[tuple[Site, KeptCall]]:
    return [] if side.site is None or side.call is None else [(side.site, side.call)]


def unexplained(given: Tensor | None, wanted: Tensor) -> Cause:
    """The cause where nothing is known but the error's shape."""
    return Cause(
        code=UNEXPLAINED,
        summary="nothing that differs as written explains it",
        confirmed=False,
        evidence=() if given is None else describe(given, wanted),
    )


def changed_unseen(row: PairResult, given: Tensor, wanted: Tensor) -> Cause:
    """The cause of a returned tensor that is not what its last site gave, though no operator was seen to write it.

    It is confirmed by the pass itself: at that site the candidate's tensor was overwritten with the baseline's.
    """
    return Cause(
        code=codes.CHANGED_UNSEEN,
        summary="changed after the last site that can be seen",
        confirmed=True,
        evidence=(*describe(given, wanted), f"{row.candidate} differs although its last site was made equal"),
        remedy="look for what writes it where torch cannot tell: a NumPy view, dlpack, a custom operator, a thread",
    )


def cause_of_state(
    leaf: str,
    call: KeptCall | None,
    baseline: KeptCall | None,
    wanted: Tensor,
    given: Tensor,
    limit: float,
) -> Cause:
    """Why a call leaves the buffer `leaf` otherwise than the baseline's does, as batch norms in train mode do."""
    before = f"relative error {distance(given, wanted):.1e}"
    if call is not None and baseline is not None and leaf in call.state & baseline.state:
        b, c = settings(baseline, IRRELEVANT), settings(call, IRRELEVANT)
        for name in ("momentum", "training", "eps"):
            if name not in b or name not in c or b[name] == c[name]:
                continue
            try:
                after = call.with_argument(name, b[name]).run()[1][leaf]
            except Exception:
                after = given
            error = distance(after, wanted)
            if error <= limit:
                return Cause(
                    code=codes.of_attribute("batch_norm", name),
                    summary=f"{name} is {c[name]}, the baseline's {b[name]}",
                    confirmed=True,
                    evidence=(f"{before} becomes {error:.1e} with this as in the baseline",),
                    remedy=f"set {name} to {b[name]}",
                )
    if leaf == "running_var" and baseline is not None:
        biased = _biased(baseline, wanted)
        if biased is not None and distance(given, biased) <= limit:
            return Cause(
                code="running-var-biased",
                summary="it is updated with the biased variance, divided by n where the baseline divides by n - 1",
                confirmed=True,
                evidence=(f"{before} becomes {distance(given, biased):.1e} against a biased update",),
                remedy="update it with the unbiased variance",
            )
    return Cause(
        code=leaf.replace("_", "-"),
        summary="the pass leaves it otherwise than the baseline's pass does",
        confirmed=False,
        evidence=(before, *describe(given, wanted)),
    )


def _biased(baseline: KeptCall, wanted: Tensor) -> Tensor | None:
    """What the baseline's running variance would be had it been updated with the biased variance."""
    old, momentum = baseline.arguments.get("running_var"), settings(baseline, IRRELEVANT).get("momentum")
    if not isinstance(old, Tensor) or not isinstance(momentum, float) or not baseline.operands:
        return None
    x = baseline.operands[0]
    n = x.numel() // x.shape[1]
    kept = (1 - momentum) * old
    return kept + (wanted - kept) * ((n - 1) / n)


def cause_of_inputs(
    row: PairResult,
    baseline: Neighbourhood,
    candidate: Neighbourhood,
    reads: Sequence[Tensor] | None,
    limit: float,
    *,
    mended: bool,
) -> Cause:
    """Why a site reads something else though all pairs above it were made equal.

    `mended` says that the site, run on what the baseline's operators give, is right or wrong for known reasons.
    """
    prepared = cause_of_preparing(baseline, candidate, reads)
    if prepared is not None:
        return prepared
    missing = list(_ops(baseline))
    extra = list(_ops(candidate))
    if not missing and not extra:
        return _rewired(row, candidate, reads, baseline.reads, limit, mended=mended)
    if missing and not extra and missing[-1] not in codes.JOINS and _runs_unread(baseline, candidate):
        return Cause(
            code="wiring-different",
            summary=f"{row.candidate} does not read {baseline.between[-1][0].name}, which runs for nothing",
            confirmed=True,
            evidence=("the candidate has the operators, but nothing reads what they make",),
            remedy="connect it as the baseline does",
        )
    if not {*missing, *extra} <= MOVES:  # beside others, operators that only lay tensors out say nothing
        missing, extra = ([op for op in ops if op not in MOVES] for ops in (missing, extra))
    return Cause(
        code=codes.of_region(missing, extra, row.op),
        summary=_told(missing, extra, row),
        confirmed=mended,
        evidence=(
            *_constants(candidate),
            f"{row.candidate} was run again on what the baseline's operators give",
        ),
        remedy=_mend(missing, extra),
    )


def _runs_unread(baseline: Neighbourhood, candidate: Neighbourhood) -> bool:
    """Whether operators with parameters that the candidate seems to lack run there with no reader."""
    wanted = Counter(loose(site) for site, _ in baseline.between if site.tensors)
    b, c = (
        Counter(loose(site) for site in side.graph.sites if not site.live) for side in (baseline, candidate)
    )
    return bool(wanted) and not wanted - (c - b)


def _ops(side: Neighbourhood) -> Iterable[str]:
    seen = set()
    for site, _ in side.between:
        call = side.graph.call_of[site.index]
        if call not in seen:
            seen.add(call)
            yield site.op


def _told(missing: Sequence[str], extra: Sequence[str], row: PairResult) -> str:
    before = "what it returns" if row.kind == "output" else f"{row.candidate}"
    if not extra:
        return f"{_listed(missing)} is missing before {before}"
    if not missing:
        return f"{_listed(extra)} before {before} is not in the baseline"
    return f"{_listed(extra)} before {before} stands where the baseline has {_listed(missing)}"


_MOST_NAMED = 8


def _listed(ops: Sequence[str]) -> str:
    """Operators in a sentence; of many how many."""
    return ", ".join(ops) if len(ops) <= _MOST_NAMED else f"a region of {len(ops)} operators"


def _the(ops: Sequence[str]) -> str:
    return _listed(ops) if len(ops) > _MOST_NAMED else f"the {_listed(ops)}"


def _mend(missing: Sequence[str], extra: Sequence[str]) -> str:
    if not extra:
        return f"add {_the(missing)}"
    if not missing:
        return f"remove {_the(extra)}"
    return f"put {_listed(missing)} in place of {_listed(extra)}"


def _constants(side: Neighbourhood) -> tuple[str, ...]:
    """The settings of what stands between, which may be the very constants that are wrong."""
    found = []
    for site, _ in side.between:
        settings = ", ".join(
            f"{name}={value}" for name, value in site.attributes.items() if value is not None
        )
        found.append(f"{site.name}: {site.op}({settings})")
    return tuple(found[:4])


def _rewired(
    row: PairResult,
    candidate: Neighbourhood,
    reads: Sequence[Tensor] | None,
    wanted: Sequence[Tensor],
    limit: float,
    *,
    mended: bool,
) -> Cause:
    sources = [source for source in candidate.sources if source is not None]
    sites = [candidate.graph.sites[source] for source in sources if source >= 0]
    read = ", ".join([*(site.name for site in sites), *("an input" for source in sources if source < 0)])
    if reads is not None and _reordered(reads, wanted, limit):
        code, remedy = "operand-order", "exchange its operands"
        summary = f"it takes what it reads ({read}) in another order"
    elif not row.rewired and None in candidate.sources:
        code, remedy = "constant-different", "give it the baseline's constant"
        summary = "a tensor that neither a site nor an input made, a constant, is not the baseline's"
    elif any(site.inplace for site in sites) or not row.rewired:
        code, remedy = "input-overwritten", "clone the tensor before it is overwritten"
        summary = f"what it reads ({read}) was changed after it was made"
    else:
        code, remedy = "wiring-different", "connect it as the baseline does"
        summary = f"it reads {read}, which is not what the baseline's site reads"
    return Cause(
        code=code,
        summary=summary,
        confirmed=mended,
        evidence=(f"{row.candidate} was run again on what the baseline's site reads",),
        remedy=remedy,
    )


def _reordered(reads: Sequence[Tensor], wanted: Sequence[Tensor], limit: float) -> bool:
    """Whether one side reads the other's tensors, in another order."""
    left = list(wanted)
    for tensor in reads:
        fits = next((k for k, each in enumerate(left) if distance(tensor, each) <= limit), None)
        if fits is None:
            return False
        del left[fits]
    return not left


def _error(changes: Sequence[Suspect], call: KeptCall, output: int, wanted: Tensor) -> float:
    try:
        for suspect in changes:
            call = suspect.apply(call)
        made = call.run()[0]
    except Exception:
        return float("inf")
    return distance(made[output], wanted) if output < len(made) else float("inf")


def _before(given: Tensor | None, wanted: Tensor) -> str:
    if given is None:
        return "it does not take the baseline's inputs"
    if given.shape != wanted.shape:
        return f"shape {tuple(given.shape)} for {tuple(wanted.shape)}"
    return f"relative error {distance(given, wanted):.1e}"


def _confirmed(first: Suspect, rest: Sequence[Suspect], before: str, after: float) -> Cause:
    every = (first, *rest)
    return Cause(
        code=first.code,
        summary="; ".join(suspect.summary for suspect in every),
        confirmed=True,
        evidence=(
            *(line for suspect in every for line in suspect.evidence),
            f"{before} becomes {after:.1e} with {'this' if not rest else 'these'} as in the baseline",
        ),
        also=tuple(suspect.code for suspect in rest),
        remedy="; ".join(suspect.remedy for suspect in every),
    )
