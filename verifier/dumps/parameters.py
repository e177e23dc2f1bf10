"""Dumped parameters: which of the candidate's they are, however their axes are arranged, and which differ."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import torch

from verifier.dumps.content import distance, likeness, mark, may_agree, permuted
from verifier.dumps.names import leaf, of_parameter, owner
from verifier.graph.operators import RECURRENT
from verifier.records import StaticDifference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from verifier.align.layouts import Layout
    from verifier.dumps.content import Mark
    from verifier.graph import Graph
    from verifier.records import Comparison

_ROLES = {
    "kernel": "weight",
    "recurrent_kernel": "weight",
    "scale": "weight",
    "gamma": "weight",
    "embedding": "weight",
    "beta": "bias",
    "mean": "running_mean",
    "moving_mean": "running_mean",
    "var": "running_var",
    "moving_variance": "running_var",
}
_GATES = (3, 4)  # of recurrent cells, and projections, that one side keeps in one tensor
_RESEMBLES = 0.5  # correlation


_Votes = dict[tuple[str, str], Counter[bool]]


class Held(NamedTuple):
    """A dumped tensor and the candidate's that it belongs to.

    `error` is how far the candidate's, laid out as the dumped one, is from it; None where they are the same.
    """

    dumped: str
    own: str
    layout: Layout
    error: Comparison | None
    exchanged: bool = False

    @property
    def text(self) -> str:
        """How the candidate's is made of it: `params/Dense_0/kernel.permute(1, 0)`."""
        return self.dumped if self.layout.trivial else f"{self.dumped}.{self.layout.text}"

    @property
    def name(self) -> str:
        """The candidate's tensor, without which rows of it."""
        return self.own.partition("[")[0]


class Parameters(NamedTuple):
    """What the dump holds of parameters: those that were recognised, and those that belong to none."""

    held: tuple[Held, ...]
    others: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """All of them, as dumped."""
        return frozenset((*(each.dumped for each in self.held), *self.others))

    @property
    def lost(self) -> tuple[str, ...]:
        """Those that belong to none, but for counters of batches, which need no partner."""
        return tuple(name for name in self.others if leaf(name) != "num_batches_tracked")

    @property
    def differing(self) -> tuple[Held, ...]:
        """Those that hold other values."""
        return tuple(each for each in self.held if each.error is not None)


def recognised(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], graph: Graph) -> Parameters:
    """The parameters among dumped tensors.

    A tensor with a parameter's numbers is that parameter; of those that only a name makes one, the module they
    stand in, their shape and likeness tell which.
    """
    targets = dict(_targets(state, graph))
    marks = {name: mark(tensor) for name, tensor in targets.items()}
    user = {use.name: site.op for site in reversed(graph.sites) for use in site.tensors}
    equal: dict[str, Held] = {}
    votes: _Votes = {}
    free = dict(targets)
    for name, tensor in tensors.items():
        own = mark(tensor)
        found = list(_equal(name, tensor, own, free, marks)) if own.varies else []
        if not found:
            continue
        equal[name] = found[0]
        free.pop(found[0].own, None)
        if len(found) == 1 and tensor.dim() > 1:
            kind = _kind(found[0], user)
            votes.setdefault(kind, Counter())[_from_last(found[0].layout)] += 1
    held = [_by_convention(each, tensors[each.dumped], targets, votes, user) for each in equal.values()]
    siblings = {owner(each.dumped): each.name.rpartition(".")[0] for each in held}
    left = [name for name in tensors if name not in equal and of_parameter(name)]
    others = []
    for name in left:
        found_one = _guess(name, tensors[name], free, siblings, votes, user)
        if found_one is None:
            others.append(name)
        else:
            held.append(found_one)
            free.pop(found_one.own, None)
    return Parameters(tuple(held), tuple(others))


def _targets(state: Mapping[str, Tensor], graph: Graph) -> Iterator[tuple[str, Tensor]]:
    """The candidate's tensors, and parts of those that hold several gates."""
    gated = {
        use.name
        for site in graph.sites
        if site.op in RECURRENT or "attention" in site.op
        for use in site.tensors
    }
    for name, tensor in state.items():
        yield name, tensor.detach().cpu()
    for name in sorted(gated & set(state)):
        rows = state[name].shape[0] if state[name].dim() else 0
        for count in _GATES:
            if rows and rows % count == 0:
                for k, part in enumerate(state[name].detach().cpu().chunk(count)):
                    yield f"{name}[{k * rows // count}:{(k + 1) * rows // count}]", part


def _limit(one: Tensor, two: Tensor) -> float:
    """What two tensors of the same values may be apart: nothing, or a rounding to the narrower dtype."""
    if one.dtype == two.dtype or not (one.is_floating_point() and two.is_floating_point()):
        return 0.0
    return max(torch.finfo(each.dtype).eps for each in (one, two))


def _equal(
    name: str, tensor: Tensor, own: Mark, free: Mapping[str, Tensor], marks: Mapping[str, Mark]
) -> Iterator[Held]:
    """Each way in which a dumped tensor is one of the candidate's, all of the first of these."""
    shape = tuple(tensor.shape)
    for target, other in free.items():
        limit = _limit(tensor, other)
        if not may_agree(own, marks[target], limit):
            continue
        any_found = False
        for layout in permuted(shape, tuple(other.shape)):
            error = distance(tensor, other, layout)
            if error is not None and error.within(limit):
                any_found = True
                yield Held(name, target, layout, None)
        if any_found:
            return


def _by_convention(
    held: Held,
    tensor: Tensor,
    targets: Mapping[str, Tensor],
    votes: _Votes,
    user: Mapping[str, str],
) -> Held:
    """The same, or with what it is off by where all others of its kind are laid out otherwise: a square one."""
    counted = votes.get(_kind(held, user))
    held_so = _from_last(held.layout)
    if not counted or tensor.dim() < 2 or counted[not held_so] <= counted[held_so]:
        return held
    shape, other = tuple(tensor.shape), targets[held.own]
    usual = [each for each in permuted(shape, tuple(other.shape)) if _from_last(each) != held_so]
    if not usual:
        return held
    layout = max(usual, key=lambda each: likeness(tensor, other, each))
    return held._replace(layout=layout, error=distance(tensor, other, layout), exchanged=True)


def _kind(held: Held, user: Mapping[str, str]) -> tuple[str, str]:
    """Tensors of one kind have inputs and outputs in one order, however many dimensions each of them takes."""
    op = user.get(held.name, "")
    return leaf(held.dumped), op if op.startswith("conv_transpose") else ""


def _from_last(layout: Layout) -> bool:
    """Whether the candidate's first dimension is not the dumped tensor's first, as with (out, in) and (in, out)."""
    if layout.finer:
        return bool(layout.order[0])
    return layout.order[0] != 0


def _guess(
    name: str,
    tensor: Tensor,
    free: Mapping[str, Tensor],
    siblings: Mapping[tuple[str, ...], str],
    votes: _Votes,
    user: Mapping[str, str],
) -> Held | None:
    """Which of the candidate's a tensor is meant to be that is none of them by value."""
    role = _ROLES.get(leaf(name), leaf(name))
    shape = tuple(tensor.shape)
    options: list[tuple[float, str, Layout]] = []
    for target, other in free.items():
        if "[" in target or _role(target) != role:
            continue
        fits = permuted(shape, tuple(other.shape))
        if not fits:
            continue
        probe = Held(name, target, fits[0], None)
        counted = votes.get(_kind(probe, user))
        turned = counted.most_common(1)[0][0] if counted else None
        usual = [each for each in fits if _from_last(each) == turned] or list(fits)
        layout = max(usual, key=lambda each: likeness(tensor, other, each))
        near = siblings.get(owner(name)) == target.rpartition(".")[0] or owner(name) == owner(target)
        same = _limit(tensor, other)
        error = distance(tensor, other, layout)
        exact = error is not None and error.within(same)
        options.append((2.0 * near + likeness(tensor, other, layout) + exact, target, layout))
    options.sort(key=lambda each: -each[0])
    if not options:
        return None
    best = options[0]
    alone = len(options) == 1 or best[0] > options[1][0] + 1.0
    if not (alone or best[0] > _RESEMBLES + max(0.0, options[1][0])):
        return None
    error = distance(tensor, free[best[1]], best[2])
    same = error is not None and error.within(_limit(tensor, free[best[1]]))
    return Held(name, best[1], best[2], None if same else error)


def _role(target: str) -> str:
    last = target.rpartition(".")[2]
    return next((role for role in ("weight", "bias") if last.startswith(role)), last)


def differences(found: Parameters) -> tuple[StaticDifference, ...]:
    """Those that differ, as a result tells them."""
    return tuple(
        StaticDifference(
            kind="tensor", baseline=each.dumped, candidate=each.own, summary=f"{said(each)} in the dump"
        )
        for each in found.differing
    )


def said(held: Held) -> str:
    """How a tensor differs: `fc.weight differs by a relative error of 1.0e-02 from params/Dense_0/kernel`."""
    how = "holds it with other axes exchanged" if held.exchanged else ""
    if held.error is not None and not how:
        how = f"differs by a relative error of {held.error.nrmse:.1e}"
    return (
        f"{held.own} {how} from {held.text}" if not held.exchanged else f"{held.own} {how}: not {held.text}"
    )
