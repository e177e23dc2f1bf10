"""In which run a site's error became another: by arithmetic, with no tolerance of its own.

A budget is what rounding can make of a site. So a figure is known to within its budget, and two figures differ beyond
rounding where one is inside its budget and the other is not, or where both are outside and farther apart than both
budgets together. The last holds on the same inputs and weights alone: on others the same fault has another size.
Inside the budget, what was equal bit for bit and is no more (or became so) is told apart as rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.records import Change, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from verifier.records import Point, RecordedRun

Key = tuple[str, str]
"""A cell and a site in it, by the baseline's name; by the candidate's where the baseline has none."""


class Follower:
    """Follows the sites of one timeline from run to run, each along its own line.

    Args:
        befores: The run each comes behind, by its number, if there is one.
    """

    def __init__(self, befores: Mapping[int, RecordedRun]) -> None:
        self._befores = befores
        self._points: dict[int, dict[Key, Point]] = {}

    def changes(self, run: RecordedRun, sites: Iterable[tuple[Key, str, Point]]) -> Iterator[Change]:
        """What changed in the next run; of each site, since the last run of its line that has it."""
        own = self._points[run.number] = {}
        for key, op, point in sites:
            own[key] = point
            last = self._last(run, key)
            if last is None:
                continue
            before, earlier = last
            found = _difference(earlier, point, alike=_alike(before, run))
            if found is None:
                continue
            kind, rounding, inherited = found
            yield Change(
                run=run.number, before=before.number, cell=key[0], site=key[1], op=op, kind=kind,
                was=getattr(earlier, kind, None), now=getattr(point, kind, None), status=point.status,
                row=point.row, rounding=rounding, inherited=inherited,
                culprit=str(Status.CULPRIT) in (earlier.status, point.status),
                grounds=tuple(_grounds(before, run)),
            )  # fmt: skip

    def _last(self, run: RecordedRun, key: Key) -> tuple[RecordedRun, Point] | None:
        before = self._befores.get(run.number)
        while before is not None:
            point = self._points[before.number].get(key)
            if point is not None:
                return before, point
            before = self._befores.get(before.number)
        return None


def ranked(changes: Iterable[Change]) -> list[Change]:
    """The changes of one run, those that say most first.

    Beyond rounding before rounding, a site's own before what it inherits, culprits before all others. Then what has
    an intrinsic error before and after, float64's, in which a difference is no rounding, and as the rows stand.
    """
    return sorted(
        changes,
        key=lambda each: (
            each.rounding,
            each.inherited,
            not each.culprit,
            each.kind != "intrinsic",
            "float64" not in each.cell.split("/"),
            each.cell,
            each.row,
        ),
    )


def _difference(before: Point, after: Point, *, alike: bool) -> tuple[str, bool, bool] | None:
    """The error that changed, whether that is rounding, and whether it is inherited; None where none did."""
    unmatched = str(Status.UNMATCHED)
    if (before.status == unmatched) != (after.status == unmatched):
        return "partner", False, False
    own = moved(
        before.intrinsic, after.intrinsic, before.allowed_intrinsic, after.allowed_intrinsic, alike=alike
    )
    if own is False:
        return "intrinsic", False, False
    known = before.intrinsic is not None and after.intrinsic is not None
    known = known or _carries(before, after)
    whole = moved(before.total, after.total, before.allowed_total, after.allowed_total, alike=alike)
    if whole is False:
        return "total", False, known
    if own is True:
        return "intrinsic", True, False
    return None if whole is None else ("total", True, known)


def _carries(*points: Point) -> bool:
    """Whether, wherever the total error is outside its budget, the site's own is known to be inside."""
    outside = [
        each for each in points if each.total is not None and not each.total <= (each.allowed_total or 0.0)
    ]
    return bool(outside) and all(
        each.intrinsic is not None and each.intrinsic <= (each.allowed_intrinsic or 0.0) for each in outside
    )


def moved(
    was: float | None,
    now: float | None,
    allowed_before: float | None,
    allowed_now: float | None,
    *,
    alike: bool,
) -> bool | None:
    """Whether an error became another: None if not, True if by rounding alone, False if beyond.

    Args:
        was: The relative error before; None where it was not measured, and nothing can be said.
        now: And now.
        allowed_before: What rounding may make of it; None for nothing.
        allowed_now: And now.
        alike: Whether both were measured on the same numbers.
    """
    if was is None or now is None or was == now or (was != was and now != now):  # noqa: PLR0124 - NaN twice
        return None
    limit_before, limit_now = allowed_before or 0.0, allowed_now or 0.0
    inside_before, inside_now = was <= limit_before, now <= limit_now  # NaN never is
    if inside_before != inside_now:
        return False
    if inside_now:
        return True if (was == 0) != (now == 0) else None
    return None if not alike or abs(now - was) <= limit_before + limit_now else False


def _alike(before: RecordedRun, after: RecordedRun) -> bool:
    return all(
        was == now != ""
        for was, now in (
            (before.inputs_digest, after.inputs_digest),
            (before.weights_digest, after.weights_digest),
        )
    )


_GROUNDS: Mapping[str, str] = {
    "inputs_digest": "the inputs",
    "weights_digest": "the baseline's weights",
    "torch": "torch",
    "processor": "the processor",
    "devices": "the devices",
}


def _grounds(before: RecordedRun, after: RecordedRun) -> Iterator[str]:
    """In what two runs differ besides the candidate."""
    for field, words in _GROUNDS.items():
        was, now = getattr(before, field), getattr(after, field)
        if was != now:
            yield f"{words} are others" if field.endswith("digest") else f"{words} {was}, now {now}"
