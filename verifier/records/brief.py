"""Headlines and reasons: one sentence that fits into a line or two, however long what it tells of is."""

from __future__ import annotations

HEADLINE = 200
"""Characters that a headline, and the reason of a verdict, has at most."""


def brief(text: str, most: int = HEADLINE) -> str:
    """`text` if it has at most `most` characters (8 or more); else its first clauses or words, and an ellipsis."""
    if len(text) <= most:
        return text
    kept = text[: most - 3]
    clause, word = kept.rfind("; "), kept.rfind(" ")
    for end in (clause, word):
        if end >= most // 2:
            return f"{kept[:end].rstrip(' ,;:(')}..."
    return f"{kept}..."


def tail(name: str, most: int) -> str:
    """The end of a name that is long: what tells neighbours in one module apart."""
    return name if len(name) <= most else f"...{name[-(most - 3) :]}"
