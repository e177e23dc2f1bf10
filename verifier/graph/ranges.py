"""Between which values the tensor of a site always lies, whatever the model is given."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from verifier.graph.operators import MOVES, SELECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from verifier.graph.sites import Graph, Site


class Range(NamedTuple):
    """The smallest and the largest value that is possible, infinite where there is no limit; whole numbers alone?"""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False

    def hull(self, other: Range) -> Range:
        """The smallest range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high), whole=self.whole and other.whole)

    def within(self, other: Range) -> Range:
        """What is left of this range where values are kept between the limits of another."""
        whole = self.whole and all(math.isinf(limit) or limit.is_integer() for limit in other[:2])
        low, high = min(max(self.low, other.low), other.high), max(min(self.high, other.high), other.low)
        return Range(low, high, whole=whole)


ANYTHING = Range()
_POSITIVE = Range(0.0, math.inf)


def ranges(graph: Graph) -> tuple[Range, ...]:
    """The range of every site, from what its operator can give for what it reads.

    Of an operator that is not in the table nothing is known, and so of an input of the model.
    """
    found: list[Range] = []
    for site in graph.sites:
        known = None not in site.operands and not site.tensors
        reads = [found[k] if k is not None and k >= 0 else ANYTHING for k in site.operands]
        found.append(_of(site, reads, known=known))
    return tuple(found)


def _of(site: Site, reads: Sequence[Range], *, known: bool) -> Range:
    """The range of one site; `known` says that all tensors it reads come from sites or inputs."""
    if site.op in _IMAGES:
        return _IMAGES[site.op]
    if site.op in _LIMITED:
        limits = _LIMITED[site.op](site.attributes)
        return reads[0].within(limits) if reads and known else limits
    if not reads or not known:
        return ANYTHING
    hull = reads[0]
    for each in reads[1:]:
        hull = hull.hull(each)
    averages = site.op in _AVERAGES or site.op.startswith("adaptive_avg_pool")
    if averages or (site.op == "interpolate" and _convex(site)):
        return hull._replace(whole=False)
    if site.op in _BETWEEN or site.op.startswith(_POOLS):
        return hull
    if site.op in _WHOLE:
        return Range(hull.low - 1, hull.high + 1, whole=True)
    if site.op.startswith("avg_pool"):  # what it pads with is 0
        return hull.hull(Range(0.0, 0.0))
    if site.op == "pad":
        return hull.hull(_padding(site.attributes))
    if site.op in _GROWING and all(each.low >= 0 for each in reads) and not _scalars(site.attributes):
        return _POSITIVE
    return ANYTHING


_IMAGES: Mapping[str, Range] = {
    "abs": _POSITIVE,
    "cos": Range(-1.0, 1.0),
    "cosine_similarity": Range(-1.0, 1.0),
    "erf": Range(-1.0, 1.0),
    "exp": _POSITIVE,
    "gelu": Range(-0.2, math.inf),
    "hardsigmoid": Range(0.0, 1.0),
    "hardswish": Range(-0.375, math.inf),
    "mish": Range(-0.31, math.inf),
    "norm": _POSITIVE,
    "relu6": Range(0.0, 6.0),
    "sigmoid": Range(0.0, 1.0),
    "silu": Range(-0.28, math.inf),
    "sin": Range(-1.0, 1.0),
    "softmax": Range(0.0, 1.0),
    "softplus": _POSITIVE,
    "sqrt": _POSITIVE,
    "square": _POSITIVE,
    "std": _POSITIVE,
    "tanh": Range(-1.0, 1.0),
    "var": _POSITIVE,
}


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) else otherwise


_LIMITED: Mapping[str, Callable[[Mapping[str, object]], Range]] = {
    "clamp": lambda given: Range(_number(given.get("min"), -math.inf), _number(given.get("max"), math.inf)),
    "clamp_max": lambda given: Range(-math.inf, _number(given.get("max"), math.inf)),
    "clamp_min": lambda given: Range(_number(given.get("min"), -math.inf), math.inf),
    "hardtanh": lambda given: Range(_number(given.get("min_val"), -1.0), _number(given.get("max_val"), 1.0)),
    "relu": lambda _: _POSITIVE,
}

# What these give lies between the smallest and the largest of what they read.
_BETWEEN = (
    MOVES
    | SELECTS
    | {"amax", "amin", "cat", "flip", "float", "double", "index_select", "max", "maximum"}
    | {"min", "minimum", "roll", "stack", "to"}
)
_AVERAGES = frozenset({"dropout", "mean"})
_WHOLE = frozenset({"ceil", "fix", "floor", "round", "trunc"})
_POOLS = ("adaptive_max_pool", "max_pool")
_GROWING = frozenset({"add", "mul", "sum"})


def _convex(site: Site) -> bool:
    return site.attributes.get("mode") != "bicubic"


def _padding(attributes: Mapping[str, object]) -> Range:
    value = _number(attributes.get("value"), 0.0) if attributes.get("mode") in (None, "constant") else 0.0
    return Range(value, value)


def _scalars(attributes: Mapping[str, object]) -> bool:
    """Whether numbers among the attributes could make the result negative."""
    return any(isinstance(value, int | float) and value < 0 for value in attributes.values())
