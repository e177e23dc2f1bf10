"""How two models' photographs are prepared, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports import sentences, wording

if TYPE_CHECKING:
    from verifier.records import Preprocessing


def prepared(found: Preprocessing) -> str:
    """Whether both prepare photographs alike, and where they first do not, in one sentence."""
    photographs = wording.counted(len(found.files), "photograph")
    whose = f"{found.candidate} prepares" if found.candidate else "this package's transforms prepare"
    if found.status == "exact":
        seen = [each.name for each in found.stages if each.status not in {"unseen", "given"}]
        what = f"all stages ({', '.join(seen)}) are" if seen else "the final tensors are"
        return f"{what} equal bit for bit on {photographs}"
    if found.status == "rounding":
        rounded = [each.name for each in found.stages if each.status == "rounding"]
        where = f" in {', '.join(rounded)}" if rounded else ""
        return f"{whose} {photographs} alike but for rounding{where}"
    if found.status == "inconclusive":
        open_ = [each.name for each in found.stages if each.status == "inconclusive"]
        where = f" ({', '.join(open_)})" if open_ else ""
        return f"whether {whose} {photographs} alike cannot be told from what it draws{where}"
    first = next((each for each in found.stages if each.name == found.first_difference), None)
    if first is None:
        shown = any(each.total is not None for each in found.stages)
        unknown = (
            f"in a way that is not known, {'in stages that' if shown else 'for its stages'} were not seen"
        )
        return f"{whose} photographs otherwise: {sentences.because(found.cause) if found.cause else unknown}"
    why = sentences.because(first.cause) if first.cause else first.reason
    return f"{whose} photographs otherwise, first in {first.name}{f': {why}' if why else ''}"
