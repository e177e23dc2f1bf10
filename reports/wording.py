"""Numbers and foreign texts as every report writes them."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")


def figure(value: float | None) -> str:
    """Three significant digits; near 1 as many more as tell it from 1; a dash for what was not measured."""
    if value is None:
        return "-"
    distance = 1 - abs(value)
    if 0 < distance < 0.1:
        decimals = min(15, 2 - math.floor(math.log10(distance)))
        return f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return f"{value:.3g}"


def share(value: float) -> str:
    """A share in percent, rounded towards zero: 100 % means all."""
    if not math.isfinite(value * 1000):
        return figure(value)
    return f"{math.floor(value * 1000) / 10:g} %"


def counted(count: int, noun: str) -> str:
    """`1 site`, `2 sites`, `25,557,032 parameters`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def some(texts: Sequence[str], most: int) -> str:
    """The first texts, and how many more there are: `a, b, c and 49 more`."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def dimensions(shape: Iterable[int]) -> str:
    """`8 x 64 x 56 x 56`."""
    return " x ".join(map(str, shape)) or "scalar"


def visible(text: str) -> str:
    """The text with control characters spelt out: a layer's name must not be able to drive a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shown(record: T) -> T:
    """A record as reports take it in: every text in it `visible`, names among them. Itself where all are."""
    made: T = _shown(record)
    return made


def _shown(value: Any) -> Any:
    kind: Any = type(value)
    if kind is str:
        return visible(value)
    if kind is tuple:
        inside: Any = tuple(map(_shown, value))
        return value if all(new is old for new, old in zip(inside, value, strict=True)) else inside
    if kind is dict:
        inside = {_shown(name): _shown(each) for name, each in value.items()}
        return value if inside == value else inside
    changed = {name: new for name in _fields(kind) if (new := _shown(old := getattr(value, name))) is not old}
    if not changed:
        return value
    return kind(**{name: getattr(value, name) for name in kind.__struct_fields__} | changed)


@functools.cache
def _fields(kind: Any) -> tuple[str, ...]:
    """Of a record's fields those that may hold text, as they are declared: most hold nothing but numbers."""
    declared: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        declared |= vars(base).get("__annotations__", {})
    return tuple(
        name
        for name in getattr(kind, "__struct_fields__", ())
        if {*re.findall(r"[A-Za-z_]\w*", str(declared[name]))} - {"float", "int", "bool", "None", "tuple"}
    )
