"""Headlines and reasons: one sentence that fits into a line or two, however long what it tells of is."""

from __future__ import annotations

HEADLINE = 200
"""Characters that a headline, and the reason of a verdict, has at most."""


def brief(text: str, most: int = HEADLINE) -> str:
    """`text` if it has at most `most` characters (8 or more); else its first clauses or words, and an ellipsis.

    It is not cut within brackets: those that open late are left out, others are closed behind the ellipsis.
    """
    if len(text) <= most:
        return text
    kept = text[: most - 3]
    clause, word = kept.rfind("; "), kept.rfind(" ")
    end = next((each for each in (clause, word) if each >= most // 2), None)
    late = next((place for place in _unclosed(kept[:end]) if place >= most // 3), end)
    kept = kept if late is None else kept[:late].rstrip(_LOOSE)
    while len(kept) + len("...") + len(_unclosed(kept)) > most:
        kept = kept[:-1]
    return f"{kept}...{')' * len(_unclosed(kept))}"


_LOOSE = " ,;:("


def _unclosed(text: str) -> list[int]:
    """Where brackets open that do not close."""
    found: list[int] = []
    for place, sign in enumerate(text):
        if sign == "(":
            found.append(place)
        elif sign == ")" and found:
            found.pop()
    return found


def tail(name: str, most: int) -> str:
    """The end of a name that is long: what tells neighbours in one module apart."""
    return name if len(name) <= most else f"...{name[-(most - 3) :]}"
