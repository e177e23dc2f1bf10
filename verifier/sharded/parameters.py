"""How the parameters of all processes make up the whole model's, and what is wrong with those that do not."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from verifier.ranks import named
from verifier.sharded.aligning import wide
from verifier.sharded.placing import Placement, place
from verifier.sharded.slices import close, matched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from verifier.sharded.aligning import Names
    from verifier.sharded.asking import Crew

Flaw = Literal["", "replicas", "swapped", "uneven", "twice", "other"]


@dataclass(frozen=True)
class Spread:
    """One of the whole's parameters: how it lies, or what is wrong with its pieces, in code and words."""

    name: str
    placed: Placement | None
    flaw: Flaw = ""
    said: str = ""
    ranks: tuple[int, ...] = ()


def spreads(
    baseline: Mapping[str, Tensor],
    crew: Crew,
    shapes: Sequence[Mapping[str, tuple[int, ...]]],
    names: Sequence[Names],
) -> dict[str, Spread]:
    """All of the whole's parameters and buffers of which some rank has a part."""
    own = [{called.whole(name): name for name in each} for each, called in zip(shapes, names, strict=True)]
    found: dict[str, Spread] = {}
    for name, whole in baseline.items():
        asked = [each.get(name) for each in own]
        if not any(asked):
            continue
        answers = crew.ask("parameter", asked)
        ranks = tuple(rank for rank, each in enumerate(answers) if each is not None)
        found[name] = _spread(name, wide(whole), [wide(answers[rank]) for rank in ranks], ranks, baseline)
    return found


def _spread(
    name: str, whole: Tensor, pieces: Sequence[Tensor], ranks: tuple[int, ...], baseline: Mapping[str, Tensor]
) -> Spread:
    placed = place(whole, pieces, 0.0)
    if placed is not None:
        return Spread(name, placed, ranks=ranks)
    if all(piece.shape == whole.shape for piece in pieces):
        right = [rank for rank, piece in zip(ranks, pieces, strict=True) if close(piece, whole, 0.0)]
        if right:
            wrong = [rank for rank in ranks if rank not in right]
            return Spread(name, None, "replicas", f"{name} is not the baseline's on {named(wrong)}", ranks)
        other = _elsewhere(name, pieces[0], baseline)
        if other:
            return Spread(name, None, "swapped", f"{name} holds {other} on {named(ranks)}", ranks)
        return Spread(name, None, "other", f"{name} holds other numbers than the baseline's", ranks)
    return _of_slices(name, whole, pieces, ranks)


def _of_slices(name: str, whole: Tensor, pieces: Sequence[Tensor], ranks: tuple[int, ...]) -> Spread:
    axes = {
        k
        for piece in pieces
        if piece.dim() == whole.dim()
        for k, (one, two) in enumerate(zip(piece.shape, whole.shape, strict=True))
        if one != two
    }
    if len(axes) != 1 or any(piece.dim() != whole.dim() for piece in pieces):
        return Spread(name, None, "other", f"{name} is cut in a way that its numbers do not tell", ranks)
    said, flaw = cut_wrongly(whole, pieces, ranks, axes.pop(), 0.0)
    return Spread(
        name, None, flaw, f"{name}: {said}" if flaw != "other" else f"{name} holds other numbers", ranks
    )


def cut_wrongly(
    whole: Tensor, pieces: Sequence[Tensor], ranks: Sequence[int], axis: int, slack: float
) -> tuple[str, Flaw]:
    """What is wrong with slices that do not make up a whole: some twice, some missing, some that are none of its."""
    found = [matched(whole, piece, axis, slack) for piece in pieces]
    size = whole.shape[axis]
    held = torch.cat([each.index[each.index >= 0] for each in found])
    missing = sorted(set(range(size)) - set(held.tolist()))
    for (one, a), (two, b) in itertools.combinations(zip(ranks, found, strict=True), 2):
        if len(a.index) and torch.equal(a.index, b.index) and a.complete and missing:
            return (
                f"ranks {one} and {two} both hold the slices {stretch(a.index.tolist())} along axis {axis}",
                "twice",
            )
    if not len(held) or len(held) * 2 < size:
        return "", "other"
    padded = [
        rank for rank, each in zip(ranks, found, strict=True) if each.index.numel() and not each.complete
    ]
    if missing and not padded:
        return f"the slices {stretch(missing)} of {size} along axis {axis} are on no rank", "uneven"
    blank = all(
        not bool(part.any())
        for each, piece in zip(found, pieces, strict=True)
        for part in piece.movedim(axis, 0)[each.index < 0]
    )
    if padded and missing and blank:
        return (
            f"the slices {stretch(missing)} of {size} along axis {axis} are on no rank; what stands for them on "
            f"{named(padded)} is 0 everywhere",
            "uneven",
        )
    if padded and not missing:
        return (
            f"on {named(padded)} there are slices along axis {axis} that the baseline does not have",
            "uneven",
        )
    return "", "other"


def stretch(indices: Sequence[int]) -> str:
    """Indices for people: `4`, or `4 to 7`."""
    return str(indices[0]) if len(indices) == 1 else f"{min(indices)} to {max(indices)}"


def _elsewhere(name: str, piece: Tensor, baseline: Mapping[str, Tensor]) -> str:
    """Another of the baseline's parameters that has the numbers."""
    for other, tensor in baseline.items():
        if other != name and tensor.shape == piece.shape and close(wide(tensor), piece, 0.0):
            return other
    return ""
