"""The same pictures at several sizes, as what a network that averages its scores takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from verifier.inputs.given import Inputs, described

if TYPE_CHECKING:
    from collections.abc import Sequence


def at_scales(sizes: Sequence[Inputs]) -> Inputs:
    """Pictures at each size, one tensor each, as positional arguments, with what was found of preparing them."""
    first = sizes[0]
    made = described(tuple(each.args[0] for each in sizes), {}, "", first.info.files)
    told = "; ".join(each.info.description for each in sizes)
    other = None
    if any(each.other is not None for each in sizes):
        others = [each.other or each for each in sizes]
        other = described(tuple(each.args[0] for each in others), {}, "", first.info.files)
        said = "; ".join(each.info.description for each in others)
        other = replace(other, info=msgspec.structs.replace(other.info, description=said))
    prepared = [each.preprocessing for each in sizes if each.preprocessing is not None]
    return replace(
        made,
        info=msgspec.structs.replace(made.info, description=told),
        other=other,
        # All sizes are prepared alike; of those that differ the first tells.
        preprocessing=next((each for each in prepared if each.applied), prepared[0] if prepared else None),
        drawn=first.drawn,
    )
