"""What a comparison of initial values says: whole sentences, in the number of what they count."""

from __future__ import annotations

import msgspec
import pytest

from reports import initialisation
from tests import pages
from verifier.initialisation.records import Initialisation, TensorResult, TensorStanding
from verifier.records import HEADLINE, Verdict


def named(*standings: TensorStanding, **fields: object) -> Initialisation:
    """Tensors of these standings; `fields` are those of the ones that are wrong."""
    found = pages.initial_values()
    wrong = msgspec.structs.replace(found.tensors[0], candidate="fc.weight", baseline="fc.weight", **fields)
    alike = TensorResult(candidate="a", baseline="a", shape=(3,), standing=TensorStanding.IDENTICAL)
    tensors = tuple(
        msgspec.structs.replace(wrong if each is TensorStanding.DIVERGED else alike, standing=each)
        for each in standings
    )
    verdict = Verdict.DIVERGED if TensorStanding.DIVERGED in standings else Verdict.MATCH
    return msgspec.structs.replace(found, verdict=verdict, tensors=tensors)


def test_one_of_each_is_told_in_the_singular() -> None:
    every = initialisation.plain(named(*TensorStanding))
    assert (
        "of 5 tensors, 1 holds the same bits, 1 is drawn from the same distribution, 1 is initialised otherwise, "
        "1 is too small to tell, 1 has no partner (seed 0)\n"
    ) in every
    two = initialisation.plain(named(*TensorStanding, *TensorStanding))
    assert "2 hold the same bits, 2 are drawn" in two
    assert "2 are too small to tell, 2 have no partner" in two
    one = initialisation.headline(named(TensorStanding.IDENTICAL))
    assert one == "match: the one tensor holds the same bits from seed 0"


@pytest.mark.parametrize(
    ("reason", "explanation", "said"),
    [
        ("it is 0 everywhere, the baseline's 1", "", "it is 0 everywhere, the baseline's 1"),
        ("it is odd", "it looks even", "it is odd; it looks even"),
        ("it is odd", "it looks " + "even " * 40, "it is odd"),
        ("it is " + "odd " * 50, "", "std 0.17, expected 0.068"),
    ],
)
def test_the_headline_ends_with_a_whole_sentence(reason: str, explanation: str, said: str) -> None:
    found = named(TensorStanding.DIVERGED, TensorStanding.IDENTICAL, reason=reason, explanation=explanation)
    start = "diverged: 1 tensor of 2 is initialised otherwise, first fc.weight"
    assert initialisation.headline(found) == f"{start}: {said}"
    assert reason.strip() in initialisation.plain(found)


def test_what_is_spread_alike_is_not_told_by_its_spread() -> None:
    wrong = pages.initial_values().tensors[0]
    found = named(TensorStanding.DIVERGED, reason="odd " * 60, measured=wrong.expected)
    assert initialisation.headline(found).endswith("initialised otherwise, first fc.weight")


def test_of_a_long_name_the_end_is_told() -> None:
    found = named(TensorStanding.DIVERGED, reason="it is odd", explanation="")
    long = msgspec.structs.replace(found.tensors[0], candidate="layers." * 40 + "w")
    said = initialisation.headline(msgspec.structs.replace(found, tensors=(long,)))
    assert len(said) <= HEADLINE
    assert said.endswith(": it is odd")
