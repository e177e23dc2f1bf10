"""Which stage of a recipe a name belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# What a name gives away; the first that fits counts.
_WORDS = (
    ("normali", "normalise"),
    ("standardi", "normalise"),
    ("jitter", "jitter"),
    ("flip", "flip"),
    ("tencrop", "crop"),
    ("crop", "crop"),
    ("pad", "pad"),
    ("resize", "resize"),
    ("shortest", "resize"),
    ("totensor", "scale"),
    ("to_tensor", "scale"),
    ("pil_to", "scale"),
    ("piltotensor", "scale"),
    ("toimage", "scale"),
    ("todtype", "scale"),
    ("convertimagedtype", "scale"),
    ("rescale", "scale"),
    ("decode", "decode"),
    ("load", "decode"),
)
# What says that a picture is not what the stage made: it is from before it, or it was undone again.
_NOT_YET = ("before", "unnormali", "denormali", "pre_", "without")


def step(function: Any, known: Iterable[str]) -> str | None:
    """The stage a step belongs to, by its name."""
    return _told(getattr(function, "__name__", "") or type(function).__name__, known)


def keys(given: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """Under which stage each key of a candidate's dict belongs, where it belongs under any.

    A stage's own name comes before other spellings of it, and of those the last counts. The last key holds the
    tensor for the model, so only the recipe's last stage may be told by another spelling there: a tensor called
    `to_tensor` may be normalised already.
    """
    names = [str(each) for each in given]
    found: dict[str, str] = {name: name for name in names if name in known}
    for name in reversed(names):
        if name in found or any(sign in name.lower() for sign in _NOT_YET):
            continue
        stage = _told(name, known)
        if stage is None or stage in found.values() or (name == names[-1] and stage != known[-1]):
            continue
        found[name] = stage
    return found


def _told(words: str, known: Iterable[str]) -> str | None:
    stage = next((stage for sign, stage in _WORDS if sign in words.lower()), None)
    return stage if stage is not None and stage in known else None
