"""A process that ends is named, with its own words."""

from __future__ import annotations

from typing import Any

import pytest

from verifier.errors import ModelError, ProcessError
from verifier.ranks import Ranks, group
from verifier.sharded import asking

RESET = RuntimeError(
    "[gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:1: Connection reset by peer. GLHF!"
)


class Pulse:
    """What the others have told."""

    def __init__(self, said: str | None) -> None:
        self.said, self.count = said, 0

    def reason(self) -> str | None:
        return self.said

    def beats(self) -> dict[int, str]:
        self.count += 1
        return {1: "4", 2: str(self.count)}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("rank 1 has ended: bad shape", "rank 1 has ended: bad shape"),
        (None, "rank 1 has died without a word, as a kill or a lack of memory ends it."),
    ],
)
def test_a_rank_that_ended_is_named(monkeypatch: pytest.MonkeyPatch, said: str | None, told: str) -> None:
    pulse: Any = Pulse(said)
    monkeypatch.setattr(group, "_SHORTLY", 0.2)
    monkeypatch.setattr(asking, "ranks", lambda: Ranks(0, 3, pulse))
    found = asking.waiting(RESET, "layers.0", wide=True)
    assert isinstance(found, ProcessError)
    assert str(found) == told


def test_what_a_model_raises_is_one_sentence() -> None:
    found = asking.waiting(ValueError("bad shape here"), "", wide=True)
    assert isinstance(found, ModelError)
    assert str(found).endswith("bad shape here; it ran in float64, which --no-semantics leaves out.")
