"""Codes of causes that a policy names: what is spelt almost like a known one is a mistake.

The list of codes is open, as most are made of an operator's or a tensor's name: a buffer of the user's own gives one.
So what is merely not known is let be, and a waiver of it that waives nothing fails once all is verified.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CLOSE = 0.8  # of two words, as `difflib` has it: a letter too many, too few or in another place
_SHORTEST = 3  # letters of a last word that another may begin with: epsilon for eps
_NAME = re.compile("[A-Z]+")  # in a pattern, it stands for one


def misspelt(code: str) -> str:
    """The known code that was meant by one that is spelt otherwise; empty where it is known, or nothing near is."""
    from verifier.diagnose.codebook import listed  # noqa: PLC0415 - the room imports torch, and seldom is one needed

    entries = listed()
    known = {name for each in entries for name in (each.code, *each.examples) if not _NAME.search(name)}
    patterns = [each.code for each in entries if re.search("[a-z]", each.code) and _NAME.search(each.code)]
    if code in known or any(_pattern(each).fullmatch(code) for each in patterns):
        return ""
    words = {word for each in (*known, *patterns) for word in each.split("-")}
    plain = re.sub(r"[\W_]+", "-", code.lower()).strip("-")
    if plain in known:
        return plain
    given = plain.split("-")
    found = [_instead(given, each.split("-"), words) for each in (*sorted(known), *patterns)]
    return _nearest(plain, (each for each in found if each))


def _pattern(code: str) -> re.Pattern[str]:
    return re.compile(_NAME.sub("[a-z0-9_-]+", code))


def _instead(given: list[str], known: list[str], words: set[str]) -> str:
    """A known code where these words are its own but for one, which is a misspelling of its; else nothing."""
    if len(given) != len(known):
        return ""
    meant = [own if _NAME.fullmatch(other) else other for own, other in zip(given, known, strict=True)]
    apart = [(own, other) for own, other in zip(given, meant, strict=True) if own != other]
    if len(apart) != 1 or apart[0][0] in words:
        return ""
    [(own, other)] = apart
    longer = given[-1] == own and len(other) >= _SHORTEST and own.startswith(other)
    close = longer or difflib.SequenceMatcher(None, own, other).ratio() >= _CLOSE
    return "-".join(meant) if close else ""


def _nearest(code: str, found: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(code, list(found), n=1, cutoff=0.0)), "")
