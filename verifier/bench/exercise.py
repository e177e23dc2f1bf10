"""What a verification exercised, and what differs as written but showed in no number."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import torch
from torch import nn

from verifier.graph.operators import DROPOUTS, MOVES, PRODUCTS, canonical
from verifier.inputs.samples import batch_size
from verifier.inputs.tally import ranges
from verifier.records import Exercise, StaticDifference, Unexercised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from verifier.align import Alignment
    from verifier.bench.comparing import Compared
    from verifier.diagnose import Tried
    from verifier.graph import Graph, Site
    from verifier.inputs import Inputs
    from verifier.records import CellResult, PairResult

TRAINING = "it acts in training mode alone"
UNSHOWN = "no inputs on which it was run alone show it"
NOT_TRIED = "it was not run alone"
UNREACHED = "no compared number depends on what differs"


def exercise(compared: Compared, given: Inputs) -> Exercise:
    """What both models were run on of all that was `given`, and what differs as written that no number showed."""
    subject = compared.bench.subject
    models = subject.baseline, subject.candidate
    found = exercised(
        subject.alignment, models, compared.batches, given, compared.static, compared.results, compared.tried
    )
    tally = None if compared.stream is None else compared.stream.seen.tally
    inputs = found.inputs if tally is None else tally.ranges
    return msgspec.structs.replace(found, inputs=inputs, unexercised=(*found.unexercised, *_paths(*models)))


def exercised(
    alignment: Alignment,
    models: Sequence[nn.Module],
    batches: Sequence[Inputs],
    given: Inputs,
    static: Iterable[StaticDifference],
    results: Sequence[CellResult],
    tried: Mapping[int, Tried],
) -> Exercise:
    """The same of some models, of which a recording may stand for the baseline.

    Args:
        alignment: The pairs.
        models: Those that are at hand.
        batches: All that went through them at once.
        given: What was asked about.
        static: What differs as written.
        results: The cells.
        tried: What sites that are written otherwise gave alone, by their row in float64.
    """
    return Exercise(
        mode=_mode(*models),
        samples=tuple(sorted({batch_size(batch) for batch in batches})),
        inputs=ranges(given),
        alone=sum(each.alone for each in tried.values()),
        unexercised=(*_unshown(alignment, static, results, tried), *_in_training(alignment)),
    )


def _mode(*models: nn.Module) -> str:
    """The mode of all modules that may read it; those of torch.nn that compute the same in both do not."""
    modes = {module.training for model in models for module in model.modules() if _reads_mode(module)}
    if not modes:
        modes = {model.training for model in models if not _captured(model)}
    return "mixed" if len(modes) > 1 else "training" if True in modes else "evaluation"


def _reads_mode(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):
        return True
    return not _captured(module) and not type(module).__module__.startswith(("torch.nn.", "torch.export."))


def _captured(module: nn.Module) -> bool:
    """Whether it was captured in one mode, whatever its flag says."""
    return isinstance(module, torch.fx.GraphModule)


def _unshown(
    alignment: Alignment,
    static: Iterable[StaticDifference],
    cells: Sequence[CellResult],
    tried: Mapping[int, Tried],
) -> Iterator[Unexercised]:
    """What differs as written at sites that are to blame in no cell."""
    blamed = {
        name
        for cell in cells
        for row in cell.culprits
        for name in (row.baseline, row.candidate, *row.between_baseline, *row.between_candidate)
        if name
    }
    seen: set[tuple[str | None, str | None]] = set()
    exactly = next((cell for cell in cells if cell.role == "semantics"), None)
    for row in exactly.layers if exactly else ():
        if row.index in tried and not blamed.intersection({row.baseline, row.candidate}):
            seen.add((row.baseline, row.candidate))
            yield from _alone(alignment, row, tried[row.index])
    users = _users(alignment.candidate)
    for each in static:
        if each.kind == "tensor":
            sites = users.get(each.candidate or "", [])
            if not each.harmless and not blamed.intersection([*sites, each.candidate]):
                yield _told(each, UNREACHED if sites else "no site reads it")
        elif each.kind in {"hyperparameter", "operators"} and each.baseline is not None:
            where = each.baseline, each.candidate
            if alignment.baseline.by_name[each.baseline].op in MOVES:
                continue
            if where not in seen and not blamed.intersection(where) and not _spelt(alignment, *where):
                yield _told(each, NOT_TRIED)


def _alone(alignment: Alignment, row: PairResult, tried: Tried) -> Iterator[Unexercised]:
    """What a site that was tried alone leaves open."""
    if tried.excited is not None or _folded(alignment, row):
        return
    summary, kind = "; ".join(row.differences), "operators"
    if row.apart:
        candidate, baseline = (
            ", ".join(graph.by_name[name].op for name in names[:_OPERATORS])
            + (", ..." if len(names) > _OPERATORS else "")
            for graph, names in (
                (alignment.candidate, row.between_candidate),
                (alignment.baseline, row.between_baseline),
            )
        )
        if candidate and baseline:
            summary = f"before it stands {candidate}, in the baseline {baseline}"
        else:
            one, other = ("candidate", "baseline") if candidate else ("baseline", "candidate")
            summary = f"before it the {one} has {candidate or baseline}, the {other} nothing"
    elif row.candidate_op is None and row.baseline and row.differences:
        if not tried.why and _spelt(alignment, row.baseline, row.candidate):
            return
        kind = "hyperparameter"
    dropped = row.apart and not all(
        any(graph.by_name[name].op not in MOVES for name in names)
        for graph, names in (
            (alignment.candidate, row.between_candidate),
            (alignment.baseline, row.between_baseline),
        )
    )  # operators that one side has beside nothing of the other's
    why = tried.why or (UNSHOWN if kind == "hyperparameter" or dropped else "")
    if why and summary:
        yield Unexercised(kind=kind, baseline=row.baseline, candidate=row.candidate, summary=summary, why=why)


def _folded(alignment: Alignment, row: PairResult) -> bool:
    """Whether one side has a product and the other the same and its norm: both are affine, statistics being fixed."""
    sides = (
        (row.op, row.between_baseline, alignment.baseline, row.candidate_op, row.between_candidate),
        (row.candidate_op, row.between_candidate, alignment.candidate, row.op, row.between_baseline),
    )
    return any(
        norm == "batch_norm"
        and product is not None
        and product.startswith(PRODUCTS)
        and not besides
        and [graph.by_name[name].op for name in between] == [product]
        for norm, between, graph, product, besides in sides
    )


_OPERATORS = 6  # that are named of a region


def _spelt(alignment: Alignment, baseline: str, candidate: str | None) -> bool:
    """Whether two sites of one operator, which give the same, differ in the names of axes alone: -1 is the last."""
    b, c = alignment.baseline.by_name[baseline], alignment.candidate.by_name.get(candidate or "")
    if c is None or b.op != c.op:
        return False
    apart = [
        name
        for name, value in b.attributes.items()
        if name in c.attributes and canonical(value) != canonical(c.attributes[name])
    ]
    return bool(apart) and set(apart) <= _AXES


_AXES = frozenset({"axis", "dim", "dim0", "dim1", "dims", "end_dim", "start_dim"})


def _told(each: StaticDifference, why: str) -> Unexercised:
    return Unexercised(
        kind=each.kind, baseline=each.baseline, candidate=each.candidate, summary=each.summary, why=why
    )


def _users(graph: Graph) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for site in graph.comparable:
        for use in site.tensors:
            users.setdefault(use.name, []).append(site.name)
    return users


def _in_training(alignment: Alignment) -> Iterator[Unexercised]:
    """Settings of paired sites, and dropouts, that evaluation does not read."""
    for pair in alignment.pairs:
        b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
        if b.op == c.op and not b.attributes.get("training"):
            one, other = b.attributes.get("momentum"), c.attributes.get("momentum")
            if "momentum" in b.attributes and "momentum" in c.attributes and one != other:
                yield _training(
                    b.name, c.name, f"momentum is {canonical(other)}, the baseline's {canonical(one)}"
                )
    dropouts = (
        _dropouts(alignment.baseline, {pair.baseline: pair.baseline for pair in alignment.pairs}),
        _dropouts(alignment.candidate, alignment.partner_back),
    )
    for place in sorted(dropouts[0].keys() | dropouts[1].keys()):
        one, other = dropouts[0].get(place, []), dropouts[1].get(place, [])
        if [_rate(site) for site in one] != [_rate(site) for site in other]:
            yield _training(
                one[0].name if one else None,
                other[0].name if other else None,
                f"{_listed(other)}, the baseline's {_listed(one)}",
            )


def _training(baseline: str | None, candidate: str | None, summary: str) -> Unexercised:
    return Unexercised(kind="training", baseline=baseline, candidate=candidate, summary=summary, why=TRAINING)


def _dropouts(graph: Graph, partner: Mapping[int, int]) -> dict[int, list[Site]]:
    """Dropouts that do nothing in this mode, by the baseline's paired site (or input) that they read."""
    found: dict[int, list[Site]] = {}
    for site in graph.sites:
        if site.op not in DROPOUTS or not site.identity or not site.inputs or not _rate(site):
            continue
        source = site.inputs[-1]
        place = source if source < 0 else partner.get(source)
        if place is not None:
            found.setdefault(place, []).append(site)
    return found


def _rate(site: Site) -> object:
    return canonical(site.attributes.get("p"))


def _listed(sites: Sequence[Site]) -> str:
    return " and ".join(f"{site.op} of {_rate(site)}" for site in sites) or "no dropout"


def _paths(baseline: nn.Module, candidate: nn.Module) -> Iterator[Unexercised]:
    """Rates of modules that drop in Python, whole paths mostly, and call no operator of torch in evaluation."""
    one, other = ([*_drops(model)] for model in (baseline, candidate))
    rates = [[rate for _, rate in side] for side in (one, other)]
    if rates[0] != rates[1]:
        where = [side[0][0] if side else None for side in (one, other)]
        counts = [", ".join(f"{n} x {rate:g}" for rate, n in Counter(side).items()) for side in rates]
        yield _training(
            where[0],
            where[1],
            f"it drops paths at rates of {counts[1] or 'none'}, the baseline {counts[0] or 'none'}",
        )


def _drops(model: nn.Module) -> Iterator[tuple[str, float]]:
    for name, module in model.named_modules():
        if type(module).__module__.startswith("torch.nn."):  # those call an operator
            continue
        for attribute in ("p", "drop_prob"):
            rate = getattr(module, attribute, None)
            if isinstance(rate, float) and 0 < rate < 1:
                yield name, round(rate, 6)
