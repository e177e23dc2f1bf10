"""Numbers in the sentences of causes."""

from __future__ import annotations

_SHOWN = 4


def numbers(*values: float) -> str:
    """At most four numbers as a person would write them, and that there are more."""
    some = ", ".join(f"{value:.6g}" for value in values[:_SHOWN])
    return f"{some}, ..." if len(values) > _SHOWN else some


def counted(count: float) -> str:
    """A count with its thousands apart; a number that is none as it is."""
    return f"{count:,.0f}" if count == round(count) else f"{count:.6g}"
