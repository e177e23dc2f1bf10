"""The network as its modules nest: which sites lie in which block, and the worst that happened inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reports import signs
from verifier.records import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import PairResult


@dataclass
class Node:
    """A module: its name below the one around it, and what lies in it, in order of execution.

    `inside` holds further nodes, and positions of rows.
    """

    label: str
    inside: list[Node | int] = field(default_factory=list)
    _children: dict[str, Node] = field(default_factory=dict)

    def child(self, label: str) -> Node:
        """The node of this name inside, which is made if need be."""
        if label not in self._children:
            self._children[label] = Node(label)
            self.inside.append(self._children[label])
        return self._children[label]

    def rows(self) -> list[int]:
        """The positions of all rows inside, also of those in nodes inside."""
        found: list[int] = []
        todo: list[Node | int] = [self]
        while todo:
            each = todo.pop()
            if isinstance(each, int):
                found.append(each)
            else:
                todo.extend(reversed(each.inside))
        return found


_DEEPEST = 40  # names that nest deeper than any network does


def grow(rows: Sequence[PairResult]) -> Node:
    """The tree of some rows by the baseline's names; what only the candidate has stands with what it leads to."""
    root = Node("")
    homes = _homes(rows)
    for position, home in enumerate(homes):
        node = root
        for part in home:
            node = node.child(part)
        node.inside.append(position)
    return _joined(root)


def tree(cells: Sequence[Sequence[PairResult]]) -> list[Any]:
    """The tree of rows that several cells share: nested `[label, inside, worst status by cell, wrong by cell]`.

    In `inside` a number is a row and a list a node; a status is its place in `reports.signs.BY_SEVERITY`. Wrong are
    culprits and sites without a partner.
    """
    order = {status: k for k, status in enumerate(signs.BY_SEVERITY)}
    statuses = [[order[row.status] for row in rows] for rows in cells]
    wrong = {order[Status.CULPRIT], order[Status.UNMATCHED]}

    def told(node: Node) -> list[Any]:
        rows = node.rows()
        best = len(order) - 1
        return [
            node.label,
            [each if isinstance(each, int) else told(each) for each in node.inside],
            [min((own[row] for row in rows), default=best) for own in statuses],
            [sum(own[row] in wrong for row in rows) for own in statuses],
        ]

    return told(grow(cells[0]))


def _homes(rows: Sequence[PairResult]) -> list[tuple[str, ...]]:
    """The modules each row lies in, from the outermost."""
    homes: list[tuple[str, ...]] = [()] * len(rows)
    below: tuple[str, ...] = ()
    for position in reversed(range(len(rows))):
        name = rows[position].baseline
        if name is not None:
            below = tuple(name.split(".")[:-1][:_DEEPEST])
        homes[position] = below
    return homes


def _joined(node: Node) -> Node:
    """The tree without nodes that hold nothing but another node: `encoder.layers` is one step, not two."""
    inside: list[Node | int] = []
    for each in node.inside:
        if isinstance(each, int):
            inside.append(each)
            continue
        label, below = each.label, each
        while len(below.inside) == 1 and isinstance(below.inside[0], Node):
            below = below.inside[0]
            label = f"{label}.{below.label}"
        inside.append(Node(label, _joined(below).inside))
    return Node(node.label, inside)
