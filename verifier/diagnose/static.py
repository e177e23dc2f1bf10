"""What differs between two models as written, before any number is compared."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from verifier.graph.operators import IRRELEVANT, canonical
from verifier.recognise.relation import constant
from verifier.recognise.values import relate
from verifier.records import LOADING, StaticDifference

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from torch import Tensor

    from verifier.align import Alignment, Assembly

# Tensors whose values are described one by one.
_MOST = 50
# Tensors without anything of the baseline's are counted if they are many, and most of those that differ.
_MANY, _MOSTLY = 8, 0.8


def static_differences(
    alignment: Alignment,
    baseline: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
    parameters: Mapping[str, Assembly],
    known: Collection[str] = (),
) -> tuple[StaticDifference, ...]:
    """How the two models differ: operators by number, hyperparameters pair by pair, tensors by value.

    Args:
        alignment: The pairs.
        baseline: The tensors the baseline computes with, by name.
        candidate: The candidate's, by name.
        parameters: For each candidate name that is mapped, how the tensor is made from the baseline's.
        known: The candidate's tensors of whose values nothing is to be said.
    """
    return (
        *_returns(alignment),
        *written_otherwise(alignment),
        *_tensors(baseline, candidate, parameters, known),
        *(each for each in _extra(alignment, candidate, parameters) if each.candidate not in known),
    )


def written_otherwise(alignment: Alignment) -> tuple[StaticDifference, ...]:
    """How two graphs differ: operators by number, and operators and their settings pair by pair."""
    return (*_operators(alignment), *_hyperparameters(alignment))


def flag_differences(
    baseline: Iterable[tuple[str, str, str]], candidate: Iterable[tuple[str, str, str]]
) -> tuple[StaticDifference, ...]:
    """Backend flags that building a model changes: name, value before and value after, for each of the two.

    They are put back, so that both models run under the same flags; where the model is used they will not be.
    """
    return tuple(
        _difference(
            "flag",
            name if side == "baseline" else None,
            name if side == "candidate" else None,
            f"building the {side} changes {name} from {old} to {new}; both were compared with {old}",
        )
        for side, changed in (("baseline", baseline), ("candidate", candidate))
        for name, old, new in changed
    )


def _difference(
    kind: str, baseline: str | None, candidate: str | None, summary: str, *, harmless: bool = False
) -> StaticDifference:
    return StaticDifference(
        kind=kind, baseline=baseline, candidate=candidate, summary=summary, harmless=harmless
    )


def _returns(alignment: Alignment) -> Iterator[StaticDifference]:
    """Other names for what the two return; by them, or else by position, it was compared."""
    candidate, baseline = (
        [name for name in graph.output_names if name and not name.replace(".", "").isdigit()]
        for graph in (alignment.candidate, alignment.baseline)
    )
    if candidate != baseline:
        told = [", ".join(names) or "no names" for names in (candidate, baseline)]
        yield _difference("output", None, None, f"it returns {told[0]}; the baseline {told[1]}")


def _operators(alignment: Alignment) -> Iterator[StaticDifference]:
    baseline, candidate = (
        Counter(site.op for site in graph.comparable) for graph in (alignment.baseline, alignment.candidate)
    )
    for op in sorted(baseline.keys() | candidate.keys()):
        if baseline[op] != candidate[op]:
            yield _difference(
                "operators",
                None,
                None,
                f"{op}: {candidate[op]} in the candidate, {baseline[op]} in the baseline",
            )


def _hyperparameters(alignment: Alignment) -> Iterator[StaticDifference]:
    for pair in alignment.pairs:
        b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
        if b.op != c.op:
            yield _difference("operators", b.name, c.name, f"{c.op}, the baseline's is {b.op}")
            continue
        for name, value in b.attributes.items():
            if name in IRRELEVANT or name not in c.attributes:
                continue
            found, expected = canonical(c.attributes[name]), canonical(value)
            if found != expected:
                yield _difference(
                    "hyperparameter", b.name, c.name, f"{name} is {found}, the baseline's {expected}"
                )
        if b.dtype != c.dtype:
            yield _difference("dtype", b.name, c.name, f"{c.dtype}, the baseline's is {b.dtype}")


def _tensors(
    baseline: Mapping[str, Tensor],
    candidate: Mapping[str, Tensor],
    parameters: Mapping[str, Assembly],
    known: Collection[str],
) -> Iterator[StaticDifference]:
    said = fresh = initial = loaded = 0
    shapes = {name: tuple(tensor.shape) for name, tensor in baseline.items()}
    for name, assembly in parameters.items():
        tensor = candidate.get(name)
        if tensor is None or not assembly.fits(shapes, tensor.shape):
            continue
        made, twin = assembly.make(baseline, tensor.shape), ", ".join(assembly.names)
        if tensor is made:
            continue
        if tensor.dtype != made.dtype:
            yield _difference("dtype", twin, name, f"{tensor.dtype}, the baseline's {made.dtype}")
        if tensor.shape == made.shape and tensor.stride() != made.stride():
            yield _difference(
                "layout", twin, name, f"strides {tensor.stride()}, the baseline's {made.stride()}"
            )
        if name in known or (said >= _MOST and fresh < _MOSTLY * said):
            continue
        alike = {key: each for key, each in baseline.items() if each.shape == tensor.shape}
        relation = relate(tensor, made, alike)
        if relation is None:
            loaded += not _is_initial(tensor)
            continue
        said += 1
        if relation.kind == "not-loaded":
            fresh += 1
            initial += _is_initial(tensor)
        if said <= _MOST:
            yield _difference("tensor", twin, name, f"it {relation.summary}")
    if fresh >= max(_MANY, _MOSTLY * said):
        told = f"{fresh} of {len(parameters)} tensors"
        if not initial:  # only constants tell initial values from those of another training
            yield _difference(
                LOADING, None, None, f"{told} are another draw, uncorrelated with the baseline's"
            )
        else:
            nothing = "" if loaded else "nothing was loaded: "
            yield _difference(LOADING, None, None, f"{nothing}{told} keep their initial values")


def _is_initial(tensor: Tensor) -> bool:
    """Whether a tensor is all 0 or all 1, as initialisation makes biases, scales and statistics."""
    return tensor.numel() > 0 and constant(tensor) in {0, 1}


# What adds nothing to a sum, and what changes nothing in a product.
_NEUTRAL = {"bias": 0.0, "weight": 1.0}


def _extra(
    alignment: Alignment, candidate: Mapping[str, Tensor], parameters: Mapping[str, Assembly]
) -> Iterator[StaticDifference]:
    """Tensors the candidate's side of a pair uses and the baseline's has no counterpart for, such as a bias."""
    said = 0
    for pair in alignment.pairs:
        b, c = alignment.baseline.sites[pair.baseline], alignment.candidate.sites[pair.candidate]
        roles = {use.role for use in b.tensors}
        for use in c.tensors:
            tensor = candidate.get(use.name)
            if b.op != c.op or use.role in roles or use.name in parameters or tensor is None or said >= _MOST:
                continue
            said += 1
            neutral = _NEUTRAL.get(use.role)
            harmless = neutral is not None and bool((tensor == neutral).all())
            values = (
                f"all are {neutral:g}, which changes nothing"
                if harmless
                else f"from {tensor.min().item():.3g} to {tensor.max().item():.3g}"
            )
            yield _difference(
                "tensor",
                b.name,
                use.name,
                f"it is a {use.role} of {tensor.numel()} numbers that the baseline does not have: {values}",
                harmless=harmless,
            )
