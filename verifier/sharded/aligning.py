"""Which tensors of each process's pass are parts of which of the whole model's: by names, numbers and counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from verifier.sharded.slices import close, matched
from verifier.sharded.watching import STATE, Key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from verifier.sharded.candidate import Noted
    from verifier.sharded.watching import Pass

IDENTITY = "torch.nn.modules.linear.Identity"
"""The class of a module that only hands on what it is given."""
_NESTED = 3  # lists within lists


@dataclass(frozen=True)
class Names:
    """What one process's modules are called in the whole model: a part in front left out, numbers of lists moved."""

    left_out: str = ""
    moved: Mapping[str, int] = field(default_factory=dict)

    def outside(self, name: str) -> bool:
        """Whether a module is a wrapper, which the whole does not have."""
        return bool(self.left_out) and (
            not name or (self.left_out.startswith(f"{name}.") and f"{name}." != self.left_out)
        )

    def whole(self, name: str) -> str:
        """The whole model's name."""
        if self.left_out and (name + ".").startswith(self.left_out):
            name = name[len(self.left_out) :]
        parts: list[str] = []
        for part in name.split("."):
            moved = self.moved.get("".join(f"{each}." for each in parts), 0) if part.isdigit() else 0
            parts.append(str(int(part) + moved) if moved else part)
        return ".".join(parts)


@dataclass(frozen=True)
class Aligned:
    """For each key of the baseline's, the keys that each rank has in its place; `lone` are those of none."""

    parts: Mapping[Key, tuple[tuple[Key, ...], ...]]
    lone: tuple[tuple[int, Key, str], ...]
    shards: Mapping[Key, str]


def aligned(baseline: Pass, noted: Sequence[Noted], names: Sequence[Names]) -> Aligned:
    """Pair the keys of all ranks with the baseline's."""
    parts: dict[Key, list[tuple[Key, ...]]] = {key: [()] * len(noted) for key in baseline.events}
    totals = Counter((key.scope, key.op) for key in baseline.events if not key.output)
    lone: list[tuple[int, Key, str]] = []
    shards: dict[Key, str] = {}
    for rank, (each, called) in enumerate(zip(noted, names, strict=True)):
        own = Counter((held.key.scope, held.key.op) for held in each.held if not held.key.output)
        kinds = {called.whole(name): kind for name, kind in each.kinds.items()}
        by_key: dict[Key, list[Key]] = defaultdict(list)
        for held in each.held:
            scope = called.whole(held.key.scope)
            count, total = own[held.key.scope, held.key.op], totals[scope, held.key.op]
            times = count // total if total and count % total == 0 else 0
            if called.outside(held.key.scope) or _stands_in(baseline.kinds.get(scope), kinds.get(scope)):
                times = 0
            fits = times == 1 or (times > 1 and _times(each, held.key.scope, baseline, scope) == times)
            inside = held.key.op and held.op != STATE
            if not fits or (inside and not _alike(baseline.kinds.get(scope), kinds.get(scope))):
                lone.append((rank, held.key, held.op))
                continue
            # Of a batch that goes through in parts, each call of the whole's comes once a part.
            key = Key(scope, held.key.op, held.key.call % total, held.key.output)
            if key not in parts:
                lone.append((rank, held.key, held.op))
                continue
            by_key[key].append(held.key)
            if held.shard:
                shards[key] = held.shard
        for key, found in by_key.items():
            parts[key][rank] = tuple(sorted(found, key=lambda k: k.call))
    return Aligned({key: tuple(each) for key, each in parts.items()}, tuple(lone), shards)


def _times(noted: Noted, scope: str, baseline: Pass, whole: str) -> int:
    """How often as often a module is called."""
    called = baseline.calls[whole]
    return noted.calls.get(scope, 0) // called if called else 0


def _stands_in(kind: Sequence[str] | None, other: Sequence[str] | None) -> bool:
    """Whether a module only hands on what it is given, in the place of one that another rank has."""
    return kind is not None and other is not None and other[0] == IDENTITY != kind[0]


def _alike(kind: Sequence[str] | None, other: Sequence[str] | None) -> bool:
    """Whether a module is of the same class, or of one that was made of it."""
    return kind is not None and other is not None and kind[0] in other


def named(
    baseline: Mapping[str, Tensor],
    kinds: Mapping[str, Sequence[str]],
    noted: Noted,
    shapes: Mapping[str, tuple[int, ...]],
    fetch: Callable[[str], Tensor | None],
    earlier: Counter[str],
    numbers_of_all: Mapping[str, set[int]],
) -> Names:
    """What a rank's modules are called in the whole: by their names, where lists were cut by their parameters.

    Args:
        baseline: All its parameters and buffers.
        kinds: Its modules.
        noted: The rank's pass.
        shapes: The rank's parameters and buffers.
        fetch: Gives one of them.
        earlier: How many modules of each list the ranks before have; this rank's are added.
        numbers_of_all: The numbers of modules of each list as all ranks call them.
    """
    own = [name for name in noted.kinds if name]
    options = {
        "",
        *(f"{name}." for name in own if name.count(".") < 3),
    }  # a wrapper in front, at most so deep

    def known(front: str) -> int:
        return sum((name[len(front) :] if name.startswith(front) else name) in kinds for name in own)

    front = max(sorted(options, key=len), key=known)
    called = Names(front)
    for _ in range(_NESTED):
        for before, numbers in sorted(lists(called.whole(name) for name in own).items()):
            known_numbers = lists(kinds).get(before, set())
            if before in called.moved or numbers_of_all.get(before, set()) >= known_numbers:
                continue
            ways = [
                Names(front, {**called.moved, before: offset})
                for offset in range(max(known_numbers) - max(numbers) + 1)
            ]
            scores = [_score(each, before, shapes, baseline, fetch) for each in ways]
            # Where not one alone explains all, it goes on where the ranks before it end.
            best = [k for k, score in enumerate(scores) if score == max(scores) and score]
            follows = earlier[before] if earlier[before] < len(ways) else 0
            full = len(best) == 1 and _full(ways[best[0]], before, shapes, baseline, max(scores))
            called = ways[best[0] if full else follows]
    for before, numbers in lists(called.whole(name) for name in own).items():
        earlier[before] += len(numbers)
    return called


def lists(names: Iterable[str]) -> dict[str, set[int]]:
    """The numbers of modules in lists, by what stands before them."""
    found: dict[str, set[int]] = defaultdict(set)
    for name in names:
        parts = name.split(".")
        for k, part in enumerate(parts):
            if part.isdigit():
                found["".join(f"{each}." for each in parts[:k])].add(int(part))
    return found


def _score(
    called: Names,
    before: str,
    shapes: Mapping[str, tuple[int, ...]],
    baseline: Mapping[str, Tensor],
    fetch: Callable[[str], Tensor | None],
) -> int:
    """How many parameters below a list are the whole's, or parts of them, by their numbers."""
    count = 0
    for name in shapes:
        whole = called.whole(name)
        if whole.startswith(before) and whole in baseline:
            piece = fetch(name)
            count += piece is not None and part_of(baseline[whole], piece)
    return count


def _full(
    called: Names,
    before: str,
    shapes: Mapping[str, tuple[int, ...]],
    baseline: Mapping[str, Tensor],
    score: int,
) -> bool:
    """Whether so many are all parameters below a list."""
    names = (called.whole(name) for name in shapes)
    return sum(name.startswith(before) and name in baseline for name in names) == score


def part_of(whole: Tensor, piece: Tensor) -> bool:
    """Whether a tensor is another, or slices of it along one dimension."""
    one, two = whole.detach().double().cpu(), piece.double()
    if one.shape == two.shape:
        return close(one, two, 0.0)
    if one.dim() != two.dim():
        return False
    axes = [k for k in range(one.dim()) if one.shape[k] != two.shape[k]]
    return len(axes) == 1 and two.numel() > 0 and matched(one, two, axes[0], 0.0).complete


def spread(pieces: Sequence[Tensor | None]) -> list[Tensor]:
    """Those that are there, as float64."""
    return [wide(piece) for piece in pieces if piece is not None]


def wide(tensor: Tensor) -> Tensor:
    """A tensor's numbers in float64; complex ones as pairs."""
    held = tensor.detach()
    return (torch.view_as_real(held.resolve_conj()) if held.is_complex() else held).double().cpu()
