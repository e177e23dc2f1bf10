"""What a certificate says otherwise than the one whose place it takes. Nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.cells import ORACLE
from verifier.certificates.content import as_graph
from verifier.certificates.summary import compared
from verifier.graph.operators import IRRELEVANT, canonical
from verifier.judge import STRICT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from verifier.certificates.certificate import Certificate
    from verifier.certificates.content import WeightRecord
    from verifier.certificates.summary import Summary
    from verifier.graph import Site

_SOME = 3


def changed(before: Certificate, after: Certificate) -> str:
    """Sites, settings, tensors and numbers that are others, in one line; sites are told apart by their names."""
    return "; ".join(_changed(before, after)) or "nothing that is recorded has changed"


def _changed(before: Certificate, after: Certificate) -> Iterator[str]:
    old, new = before.content, after.content
    if old.weights != new.weights:
        yield f"weights {new.weights}, before {old.weights}"
    if old.inputs.info.digest == new.inputs.info.digest:
        yield from _numbers(before, after)
    else:
        yield "other inputs, so that no number can be held against the old ones"
    earlier = {site.name: site for site in as_graph(old.graph).sites}
    later = {site.name: site for site in as_graph(new.graph).sites}
    settings = [
        f"{name} ({said})"
        for name, site in later.items()
        if name in earlier and (said := _otherwise(earlier[name], site))
    ]
    if settings:
        yield f"settings: {_some(settings)}"
    for word, those, others in (("gone", earlier, later), ("new", later, earlier)):
        alone = [f"{name} ({site.op})" for name, site in those.items() if name not in others]
        if alone:
            yield f"{word}: {_some(alone)}"
    yield from _tensors({each.name: each for each in old.tensors}, {each.name: each for each in new.tensors})


def _numbers(before: Certificate, after: Certificate) -> Iterator[str]:
    """How many sites give other numbers in float64, beyond rounding, and the first."""
    old, new = _summaries(before), _summaries(after)
    both = [name for name in new if name in old]
    apart = {}
    for name in both:
        (shape, was), (other, now) = old[name], new[name]
        if shape != other:
            apart[name] = "another shape"
        elif not (error := compared(was, now)).within(STRICT.semantics):
            apart[name] = f"relative error {error.nrmse:.3g}"
    if apart:
        first, how = next(iter(apart.items()))
        yield f"{len(apart):,} of {len(both):,} sites give other numbers, first {first}, {how}"


def _summaries(certificate: Certificate) -> dict[str, tuple[tuple[int, ...], Summary]]:
    """Shape and summary of each site in float64, by its name."""
    recording = next(each for each in certificate.recordings if each.record.cell == ORACLE.name)
    record, sites = recording.record, certificate.content.graph.sites
    return {
        sites[site].name: (shape, summary)
        for site, shape, summary in zip(record.sites, record.shapes, recording.summaries, strict=False)
    }


def _otherwise(before: Site, after: Site) -> str:
    if before.op != after.op:
        return f"{after.op}, before {before.op}"
    return "; ".join(
        f"{name} {canonical(after.attributes[name])}, before {canonical(value)}"
        for name, value in before.attributes.items()
        if name in after.attributes
        and name not in IRRELEVANT
        and canonical(after.attributes[name]) != canonical(value)
    )


def _tensors(old: Mapping[str, WeightRecord], new: Mapping[str, WeightRecord]) -> Iterator[str]:
    others = [name for name in new if name in old and new[name].own != old[name].own]
    if others:
        yield f"{len(others):,} of {len(new):,} tensors hold other values: {_some(others)}"
    for word, those, these in (("gone", old, new), ("new", new, old)):
        alone = [name for name in those if name not in these]
        if alone:
            yield f"tensors that are {word}: {_some(alone)}"


def _some(told: Sequence[str]) -> str:
    return ", ".join([*told[:_SOME], *([f"and {len(told) - _SOME:,} more"] if told[_SOME:] else [])])
