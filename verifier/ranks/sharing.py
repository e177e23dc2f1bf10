"""Which rank takes which of many numbered parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from verifier.ranks.group import Ranks


def share(ranks: Ranks, count: int, done: Container[int] = ()) -> Callable[[int], bool]:
    """Whether a part is this rank's: of those that are left of `count` a stretch, of any beyond these every so many.

    Parts that stand side by side merge, so of a stretch few are held. Every part is some rank's, whatever `count` is.
    """
    left = [number for number in range(count) if number not in done]
    first, last = (len(left) * k // ranks.size for k in (ranks.rank, ranks.rank + 1))
    own = frozenset(left[first:last])

    def wanted(number: int) -> bool:
        if number < count:
            return number in own
        return number not in done and number % ranks.size == ranks.rank

    return wanted
