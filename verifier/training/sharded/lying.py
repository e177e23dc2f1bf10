"""How the parameters of a candidate lie on its processes, and what follows of a batch: put together, and cut up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verifier.sharded.aligning import wide
from verifier.sharded.placing import Placement, cut, farthest, join, place
from verifier.sharded.watching import plain
from verifier.training.sharded.part_batch import Expected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from verifier.sharded.aligning import Names
    from verifier.sharded.parameters import Spread
    from verifier.training.baseline_batch import Named
    from verifier.training.sharded.part_batch import PartBatch

_ROUNDING = 1e-12  # relative, of gradients that were added up in another order, in float64


@dataclass(frozen=True)
class Lying:
    """Which part of each of the whole's parameters and buffers each rank has, under which name."""

    placed: Mapping[str, Placement]
    ranks: Mapping[str, tuple[int, ...]]
    own: Sequence[Mapping[str, str]]  # of each rank, the whole's names to its own
    size: int

    @classmethod
    def told(
        cls, spreads: Mapping[str, Spread], shapes: Sequence[Mapping[str, object]], names: Sequence[Names]
    ) -> Lying:
        """As the numbers of the parameters tell."""
        return cls(
            {name: each.placed for name, each in spreads.items() if each.placed is not None},
            {name: each.ranks for name, each in spreads.items()},
            [{called.whole(name): name for name in each} for each, called in zip(shapes, names, strict=True)],
            len(names),
        )

    def pieces(
        self, name: str, found: Callable[[PartBatch], Mapping[str, Tensor]], parts: Sequence[PartBatch]
    ) -> list[Tensor | None]:
        """What each rank that has the parameter has of it in a table of its batch, float64."""
        every = []
        for rank in self.ranks[name]:
            tensor = found(parts[rank]).get(self.own[rank][name])
            every.append(None if tensor is None else wide(tensor))
        return every

    def joined(self, name: str, whole: Tensor, pieces: Sequence[Tensor | None]) -> Tensor | None:
        """What they make up, as the parameter lies, float64; None where they do not fit, or none is there.

        Of what is no part of a tensor, as a count of steps, the one that is farthest from the whole's.
        """
        there = [piece for piece in pieces if piece is not None]
        if len(there) < len(pieces) or not there:
            return None
        base = wide(whole)
        if base.dim() == 0:
            return farthest(base, [piece.reshape(()) for piece in there])
        if any(piece.dim() != base.dim() for piece in there):
            return None
        return join(self.placed[name], base, there)

    def settled(self, kept: PartBatch, parts: Sequence[PartBatch]) -> Lying:
        """The same where numbers that are all alike did not tell the order of parts.

        Then the parts of another parameter of the module do, if it is cut into as many slices, else the gradients.
        """
        found = dict(self.placed)
        for name, placed in self.placed.items():
            if placed.certain or placed.indices is None or placed.second is not None:
                continue
            sizes = [len(index) for index in placed.indices]
            scope = name.rpartition(".")[0]
            told = next(
                (
                    each
                    for other, each in self.placed.items()
                    if other.rpartition(".")[0] == scope
                    and each.certain
                    and (each.kind, each.axis) == (placed.kind, placed.axis)
                    and [len(index) for index in each.indices or ()] == sizes
                    and self.ranks[other] == self.ranks[name]
                ),
                None,
            )
            if told is None and (row := kept.applied.get(name)):
                applied = self.pieces(name, lambda each: {n: r[0] for n, r in each.applied.items()}, parts)
                there = [each for each in applied if each is not None]
                told = place(wide(row[0]), there, _ROUNDING) if len(there) == len(applied) else None
                told = told if told is not None and told.certain and told.axis == placed.axis else None
            if told is not None and told.indices is not None and told.shape == placed.shape:
                found[name] = replace(
                    placed, indices=told.indices, usual=told.usual, order=told.order, certain=True
                )
        return replace(self, placed=found)

    def tied(self, aliases: Mapping[str, str], shapes: Sequence[Mapping[str, object]]) -> Lying:
        """The same, where parameters that the whole has under two names lie on ranks under either: as copies of one.

        Args:
            aliases: Further names of the whole's parameters, with the first of each.
            shapes: What each rank has by its own names.
        """
        ranks, own = dict(self.ranks), [dict(each) for each in self.own]
        for alias, name in aliases.items():
            placed = self.placed.get(name)
            if placed is None or placed.kind != "replica" or placed.indices is not None or placed.parts:
                continue
            first = ranks[name][0]
            shape = shapes[first][own[first][name]]
            for rank, names in enumerate(own):
                if alias in names and name not in names and shapes[rank].get(names[alias]) == shape:
                    names[name] = names.pop(alias)
                    ranks[name] = tuple(sorted((*ranks[name], rank)))
        return replace(self, ranks=ranks, own=own)

    def strangers(self, parts: Sequence[Sequence[PartBatch]], known: Mapping[str, object]) -> set[str]:
        """What ranks train that the whole does not have."""
        return {
            name
            for own, batches in zip(self.own, parts, strict=True)
            for name, here in own.items()
            if name not in known and any(here in each.applied for each in batches)
        }

    def untrained(self, parts: Sequence[Sequence[PartBatch]]) -> dict[str, tuple[int, ...]]:
        """Ranks on which a copy of a parameter takes gradients and never gets one, though others of it do."""
        found = {}
        for name, placed in self.placed.items():
            if placed.kind != "replica" or placed.indices is not None or placed.parts:
                continue
            without = tuple(
                rank
                for rank in self.ranks[name]
                if not any(
                    self.own[rank][name] in each.gradients or self.own[rank][name] in each.frozen
                    for each in parts[rank]
                )
            )
            if without and len(without) < len(self.ranks[name]):
                found[name] = without
        return found

    def without(self, left_out: Mapping[str, tuple[int, ...]]) -> Lying:
        """The same, but for some parameters without some ranks."""
        kept = {
            name: tuple(rank for rank in ranks if rank not in left_out.get(name, ()))
            for name, ranks in self.ranks.items()
        }
        return replace(self, ranks=kept)

    def cut(self, name: str, whole: Tensor) -> list[Tensor]:
        """What each rank that has the parameter should have of a tensor that lies as it does."""
        if whole.dim() == 0:
            return [whole] * len(self.ranks[name])
        placed, count = self.placed[name], len(self.ranks[name])
        return cut(placed, whole, count)

    def expected(self, kept: PartBatch, shapes: Mapping[str, torch.Size]) -> list[Expected]:
        """What each rank should have in a batch, of what the whole had in it."""
        found = [Expected() for _ in range(self.size)]

        def spread(name: str, tensor: Tensor) -> list[tuple[int, str, Tensor]]:
            whole = tensor.dim() == 0 or tensor.shape == shapes.get(name)
            if name not in self.placed or not whole:
                return []
            pieces = zip(self.ranks[name], self.cut(name, tensor), strict=True)
            return [(rank, self.own[rank][name], piece.clone()) for rank, piece in pieces]

        def rows(table: Named, where: Callable[[Expected], dict[str, list[Tensor]]]) -> None:
            for name, row in table.items():
                for tensor in row:
                    for rank, own, piece in spread(name, tensor):
                        where(found[rank]).setdefault(own, []).append(piece)

        rows(kept.applied, lambda each: each.applied)
        rows(kept.weights, lambda each: each.weights)
        left = {name: row[-1] for name, row in kept.buffers.items()}
        for name, tensor in kept.parameters.items():
            for rank, own, piece in spread(name, tensor):
                found[rank].parameters[own] = piece
        for name, tensor in left.items():
            for rank, own, piece in spread(name, tensor):
                found[rank].buffers[own] = piece
        for name, rate in kept.rates.items():
            for rank in self.ranks.get(name, ()):
                found[rank].rates[self.own[rank][name]] = rate
        return found


def aliases(whole: nn.Module) -> dict[str, str]:
    """Further names of parameters that have several, with the first."""
    seen: dict[int, str] = {}
    named = [(plain(name), each) for name, each in whole.named_parameters(remove_duplicate=False)]
    firsts = {name: seen.setdefault(id(each), name) for name, each in named}
    return {name: first for name, first in firsts.items() if name != first}
