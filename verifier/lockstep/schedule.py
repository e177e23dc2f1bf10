"""In which order lanes advance so that they meet at every pair, with as little kept aside as possible."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def meeting_order(
    orders: Sequence[Sequence[int]], sizes: Sequence[Sequence[int]], pinned: Sequence[bool]
) -> list[int]:
    """The order in which pairs are met by lanes that visit them in different orders.

    A lane that passes a pair before the others reach it leaves a copy of its tensor there. At each step the
    pair is chosen, among those some lane comes to next, for which the fewest bytes have to be copied. Where all
    lanes visit the pairs in one order nothing is ever copied.

    Args:
        orders: For each lane, every pair once, in the order the lane visits them.
        sizes: For each lane, the size of its tensor at each visit, in the same order.
        pinned: Lanes that must stand at each pair when it is met (their tensor is overwritten there), so they
            may not pass any.

    Returns:
        Every pair once. Where two pinned lanes visit pairs in different orders, a pin is broken as seldom as
        the cheapest next step allows; run such lanes apart.
    """
    lanes = range(len(orders))
    position = [{pair: k for k, pair in enumerate(order)} for order in orders]
    before = [[0, *accumulate(lane_sizes)] for lane_sizes in sizes]
    frontier = [0] * len(orders)  # how far each lane has come
    waiting = [0] * len(orders)  # the first pair in each lane's order that is not met yet
    met: dict[int, None] = {}

    def cost(pair: int) -> tuple[int, int]:
        passed = broken = 0
        for lane in lanes:
            at = position[lane][pair]
            if at > frontier[lane]:
                passed += before[lane][at] - before[lane][frontier[lane]]
                broken += pinned[lane]
        return broken, passed

    while len(met) < len(orders[0]):
        for lane in lanes:
            while orders[lane][waiting[lane]] in met:
                waiting[lane] += 1
        heads = dict.fromkeys(orders[lane][waiting[lane]] for lane in lanes)
        pair = next(iter(heads)) if len(heads) == 1 else min(heads, key=cost)
        for lane in lanes:  # a lane that passed the pair earlier stays where it is
            frontier[lane] = max(frontier[lane], position[lane][pair] + 1)
        met[pair] = None
    return list(met)
