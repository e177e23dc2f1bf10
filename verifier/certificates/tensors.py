"""Which tensors a candidate computes with where its baseline is a certificate, and which of them are others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import torch

from verifier.align import Assembly
from verifier.certificates.content import shapes_of
from verifier.certificates.drawing import drawn, scale_of
from verifier.environment import describe
from verifier.errors import CertificateError
from verifier.models.copying import state_of
from verifier.records import StaticDifference, Status
from verifier.weights.calibration import varies
from verifier.weights.choosing import without_partner
from verifier.weights.files import published
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from torch import Tensor, nn

    from verifier.align import Alignment
    from verifier.bench.side import Side
    from verifier.certificates.certificate import Certificate
    from verifier.certificates.content import WeightRecord
    from verifier.judge import Judged
    from verifier.records import PairResult

_SOME = 3


@dataclass(frozen=True)
class Fitted:
    """The candidate's tensors: what it computes with, how it is made, and which are others than those recorded.

    `redrawn` are others only in that the libraries of today draw them otherwise when the model is built.
    """

    masters: Mapping[str, Tensor]
    assemblies: Mapping[str, Assembly]
    kept: tuple[str, ...]
    unmapped: tuple[str, ...]
    differences: tuple[StaticDifference, ...]
    redrawn: tuple[str, ...] = ()


def marks(certificate: Certificate, candidate: nn.Module) -> tuple[dict[str, Hashable], dict[str, Hashable]]:
    """What tells the tensors of both apart by value: digests. None for constants."""
    hasher = Hasher()
    return (
        {each.name: None if each.constant else each.own for each in certificate.content.tensors},
        {
            name: hasher.of_all([("", tensor)]) if varies(tensor) else None
            for name, tensor in state_of(candidate).items()
        },
    )


def fitted(
    certificate: Certificate,
    candidate: Side,
    alignment: Alignment,
    found: Mapping[str, Hashable],
    given: Mapping[str, Assembly | None],
) -> Fitted:
    """What the candidate computes with: its own tensors, or those that the recorded model computed with.

    Of a candidate that is a copy, as most of its tensors show, the others were edited: it keeps them, and they are
    told.

    Args:
        certificate: The recording.
        candidate: The candidate, untouched.
        alignment: Tells which tensor of one is which of the other.
        found: The candidate's marks.
        given: What is known of its tensors.

    Raises:
        CertificateError: The recorded tensors cannot be made again here, or none belongs to the candidate's.
    """
    content = certificate.content
    own = state_of(candidate.model)
    records = {each.name: each for each in content.tensors}
    mapping = _by_name(records, own, found) or alignment.parameters
    mapping = {
        name: assembly
        for name, assembly in {**mapping, **given}.items()
        if assembly is not None and name in own
    }
    shapes = shapes_of(content)
    mapping = {name: each for name, each in mapping.items() if each.fits(shapes, own[name].shape)}
    weighty = [name for name, each in records.items() if each.learnt]
    if weighty and own and not mapping:
        raise CertificateError(
            f"{certificate.source or 'the certificate'} is of another network: none of the candidate's {len(own)} "
            f"tensors belongs to one of its {len(records)}. If they do, say how with --map."
        )
    unmapped = without_partner(candidate.model, own, mapping)
    twins = {
        name: records[assembly.whole] for name, assembly in mapping.items() if assembly.whole is not None
    }
    if content.weights == "as-is":
        told = _others(twins, own, edited=False)
        return Fitted(own, mapping, tuple(own), unmapped, tuple(told))
    edits = _edits(twins, own, found) - {name for name, each in given.items() if each is not None}
    redrawn = _redrawn(certificate, candidate, {name: twins[name] for name in edits}, own)
    edits -= redrawn
    taken = {
        name: assembly
        for name, assembly in mapping.items()
        if name not in edits and all(records[each].learnt for each in assembly.names)
    }
    tensors = _made(certificate, {each for assembly in taken.values() for each in assembly.names})
    masters = dict(own)
    for name, assembly in taken.items():
        made = assembly.make(tensors, own[name].shape)
        masters[name] = made.to(own[name].dtype).to(own[name].device)
    told = _others({name: twins[name] for name in edits}, own, edited=True)
    rest = {name: each for name, each in twins.items() if not each.learnt}
    kept = tuple(name for name in own if name not in taken)
    differences = (*told, *_others(rest, own, edited=False))
    return Fitted(masters, mapping, kept, unmapped, differences, tuple(sorted(redrawn)))


def _by_name(
    records: Mapping[str, WeightRecord], own: Mapping[str, Tensor], found: Mapping[str, Hashable]
) -> dict[str, Assembly] | None:
    """Each tensor's own name, if the candidate is a copy of the recorded model by name and by value."""
    if {n: tuple(t.shape) for n, t in own.items()} != {n: each.shape for n, each in records.items()}:
        return None
    telling = [name for name, each in records.items() if not each.constant]
    same = sum(records[name].own == found[name] for name in telling)
    return {name: Assembly.of(name) for name in own} if same > len(telling) / 2 else None


def _edits(
    twins: Mapping[str, WeightRecord], own: Mapping[str, Tensor], found: Mapping[str, Hashable]
) -> set[str]:
    """Tensors in which a copy of the recorded model differs from it, as it was before anything was drawn."""
    telling = [name for name, each in twins.items() if not each.constant]
    same = sum(twins[name].own == found[name] for name in telling)
    if not telling or same <= len(telling) / 2:
        return set()
    hasher = Hasher()
    return {name for name, each in twins.items() if not _holds(own[name], each, each.own, hasher)}


_BUILDERS = ("torch", "torchvision")  # libraries that draw what a model starts from
_ERRORS = 4.0  # standard errors within which two draws of one distribution have one mean and one spread
_BY_CHANCE, _SHARE = 3, 1e-5  # numbers that two draws share: some, and of many a part, as of what is cut off
_SAME = 1e-9  # of the spread: what sums in another order are apart, and two draws are not


def _redrawn(
    certificate: Certificate, candidate: Side, twins: Mapping[str, WeightRecord], own: Mapping[str, Tensor]
) -> set[str]:
    """Of tensors with other values than the recorded ones those that another release of a library draws otherwise.

    They are drawn when the candidate is built, all of their numbers, as another seed shows, and from the distribution
    that was recorded; the tensors that the same kind of module holds by that name are others as well. What is exactly
    of that mean and spread holds the same numbers elsewhere, and was edited.
    """
    then, here = certificate.content.environment.packages, describe().packages
    if not twins or all(then.get(name) == here.get(name) for name in _BUILDERS):
        return set()
    otherwise = candidate.drawn_otherwise()
    kept = {_kind(candidate.model, name) for name in own if name not in twins}
    return {
        name
        for name, each in twins.items()
        if name in otherwise
        and _kind(candidate.model, name) not in kept
        and int((otherwise[name] == own[name]).sum()) <= max(_BY_CHANCE, _SHARE * own[name].numel())
        and _alike(each, certificate.weights.get(each.name), own[name])
    }


def _kind(model: nn.Module, name: str) -> tuple[type[nn.Module], str]:
    """What draws a tensor: the class of the module that holds it, and what it is called there."""
    owner, _, leaf = name.rpartition(".")
    return type(model.get_submodule(owner)), leaf


def _alike(record: WeightRecord, stored: Tensor | None, tensor: Tensor) -> bool:
    """Whether a tensor is another draw of the distribution that a recorded one shows."""
    scale = record.drawn or (scale_of(stored, least=1) if stored is not None else None)
    found = scale_of(tensor, least=1)
    if scale is None or found is None:
        return False
    (mean, spread), (other, others) = scale, found
    deviations = (tensor.double() - other) / others
    kurtosis = float(deviations.pow(4).mean())
    error = _ERRORS * spread * math.sqrt(2 / tensor.numel())  # of the difference of two means
    apart = abs(other - mean), abs(others - spread)
    return (
        max(apart) > _SAME * spread
        and apart[0] <= error
        and apart[1] <= error * math.sqrt((kurtosis - 1) / 4)
    )


def _holds(tensor: Tensor, record: WeightRecord, digest: str, hasher: Hasher) -> bool:
    """Whether a tensor holds what is recorded, but for its shape and a dtype that is no narrower."""
    alike = tensor.reshape(record.shape)
    dtype = getattr(torch, record.dtype)
    if alike.dtype != dtype:
        cast = alike.to(dtype)
        if not torch.equal(cast.to(alike.dtype), alike):
            return False
        alike = cast
    return hasher.of_all([("", alike)]) == digest


def _others(
    twins: Mapping[str, WeightRecord], own: Mapping[str, Tensor], *, edited: bool
) -> Iterator[StaticDifference]:
    """The tensors that hold other values than the recorded ones."""
    hasher = Hasher()
    for name, each in twins.items():
        if not _holds(own[name], each, each.own, hasher):
            more = "; it keeps them, where the others are drawn" if edited else ""
            yield StaticDifference(
                kind="tensor",
                baseline=each.name,
                candidate=name,
                summary=f"other values than when {each.name} was recorded{more}",
            )


def with_tensors(judged: Judged, alignment: Alignment, fit: Fitted) -> Judged:
    """The judgement, with what a culprit's own tensors hold otherwise among what differs there."""
    others = {each.candidate for each in fit.differences}
    uses = {site.name: [use.name for use in site.tensors] for site in alignment.candidate.sites}

    def told(row: PairResult) -> PairResult:
        own = [name for name in uses.get(row.candidate or "", ()) if name in others]
        if row.kind != "site" or row.status is not Status.CULPRIT or not own:
            return row
        said = [f"{name} holds other values than the recorded one" for name in dict.fromkeys(own)]
        return msgspec.structs.replace(row, differences=(*row.differences, *said))

    first = judged.first_divergence
    return replace(
        judged,
        rows=tuple(map(told, judged.rows)),
        culprits=tuple(map(told, judged.culprits)),
        first_divergence=None if first is None else told(first),
    )


def _made(certificate: Certificate, names: set[str]) -> dict[str, Tensor]:
    """The recorded model's tensors of these names, made again and held against their digests."""
    content = certificate.content
    source = certificate.source or "the certificate"
    records = {each.name: each for each in content.tensors}
    if content.weights == "imagenet":
        empty = {
            each.name: torch.empty(each.shape, dtype=getattr(torch, each.dtype)) for each in content.tensors
        }
        tensors, _ = published(content.model.spec, empty)
        found = {name: tensors[name] for name in names}
    else:
        found = {}
        for name in names:
            each = records[name]
            if each.drawn is not None:
                found[name] = drawn(name, each.shape, getattr(torch, each.dtype), each.drawn, content.seed)
            elif name in certificate.weights:
                found[name] = certificate.weights[name]
            else:
                raise CertificateError(f"{source} does not hold {name!r}, nor how it is made.")
    hasher = Hasher()
    wrong = [name for name in sorted(names) if hasher.of_all([("", found[name])]) != records[name].digest]
    if wrong:
        more = ", ..." if wrong[_SOME:] else ""
        raise CertificateError(
            f"{source}: {', '.join(wrong[:_SOME])}{more} cannot be made again as recorded: the digests differ."
        )
    return found
