"""Names with stars in them: which names they mean, and what the stars stand for."""

from __future__ import annotations

import re

STARS = re.compile(r"\*\*|\*")


class Pattern:
    """A name in which `*` stands for something without a dot, and `**` for anything; neither for nothing.

    Matching takes one step a character of the name, however many stars there are: for each place in the name, the
    places of the pattern from which the rest of both goes together are the bits of one number.
    """

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        end = 0
        for star in STARS.finditer(text):
            self._tokens += [*text[end : star.start()], star[0]]
            end = star.end()
        self._tokens += text[end:]
        bits = {
            kind: sum(1 << k for k, token in enumerate(self._tokens) if token == kind)
            for kind in dict.fromkeys(self._tokens)
        }
        self._any, within = bits.pop("**", 0), bits.pop("*", 0)
        self._stars = self._any | within
        self._takes = {
            char: known | (self._any if char == "." else self._stars) for char, known in bits.items()
        }

    def stars(self, name: str) -> tuple[str, ...] | None:
        """What the stars stand for in `name`, each as much as it can from the left; None where it does not match."""
        left = [1 << len(self._tokens)]
        for char in reversed(name):
            # A token takes the character, and then the rest goes from the token after it; or from a star again.
            takes = self._takes.get(char, self._any if char == "." else self._stars)
            left.append(takes & (left[-1] >> 1 | left[-1] & self._stars))
        left.reverse()
        if not left[0] & 1:
            return None
        parts, place = [], 0
        for k, token in enumerate(self._tokens):
            start, place = place, place + 1
            if token in ("*", "**"):
                while place < len(name) and left[place] >> k & 1:
                    place += 1
                parts.append(name[start:place])
        return tuple(parts)
