"""Every kind of fault once, alone: found, blamed alone, and explained. Every benign variant once: not flagged."""

from __future__ import annotations

import random

import pytest

from tests.mutants.benign import BENIGN, applies, variant
from tests.mutants.catalogue import FAULTS
from tests.mutants.drawing import Effect, Mutant, draw, planted, single
from tests.mutants.networks import BUILDERS, build, images
from tests.mutants.scorecard import bars
from tests.mutants.scoring import Score, score, score_variant
from tests.sweeps import swept

KINDS = swept(sorted(FAULTS), sorted(FAULTS)[::5])


def drawn(kind: str) -> Mutant:
    """A mutant of this kind that shows."""
    rng = random.Random(kind)
    for _ in range(20):
        mutant = single(kind, 0, rng)
        if mutant is not None and mutant.effect is Effect.VISIBLE:
            return mutant
    raise AssertionError(f"{kind} shows nowhere")


@pytest.fixture(scope="module")
def scores() -> dict[str, Score]:
    return {}


def scored(kind: str, scores: dict[str, Score]) -> Score:
    if kind not in scores:
        scores[kind] = score(drawn(kind))
    return scores[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_detected(kind: str, scores: dict[str, Score]) -> None:
    assert scored(kind, scores).detected, str(scored(kind, scores))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_blamed_where_it_is_and_nothing_else_is(kind: str, scores: dict[str, Score]) -> None:
    found = scored(kind, scores)
    assert found.first, str(found)
    assert found.localised, str(found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_explained(kind: str, scores: dict[str, Score]) -> None:
    assert scored(kind, scores).diagnosed, f"{scored(kind, scores)}; right: {sorted(FAULTS[kind].causes)}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_faulty_model_is_left_as_it_was(kind: str, scores: dict[str, Score]) -> None:
    assert scored(kind, scores).untouched


@pytest.mark.parametrize("name", swept(sorted(BENIGN), sorted(BENIGN)[::4]))
def test_a_benign_variant_is_not_flagged(name: str) -> None:
    rng = random.Random(name)
    network = rng.choice([n for n in sorted(BUILDERS) if applies(name, build(n, 0))])
    made = variant(build(network, 0), images(network, 2, 1), [name], rng)
    found = score_variant(network, build(network, 0), made, (name,))
    assert found.verdict == "match", str(found)


def test_a_draw_is_the_same_every_time() -> None:
    first, second = (draw(random.Random("7")) for _ in range(2))
    assert [str(step) for step in first.steps] == [str(step) for step in second.steps]
    assert score(first).said == score(second).said


def test_nothing_planted_is_equivalent_and_matches() -> None:
    for network in BUILDERS:
        mutant = planted(network, 0, [])
        assert mutant is not None
        assert mutant.effect is Effect.EQUIVALENT
        assert not score(mutant).detected


def test_a_missed_bar_is_told_from_one_that_is_met() -> None:
    good = Score(
        0, "plain", ("relu-missing",), ("relu",), "visible", False, True, True, True, True, True, "", 0.0
    )
    bad = Score(
        1, "plain", ("relu-missing",), ("relu",), "visible", False, True, False, False, False, True, "", 0.0
    )
    assert all(bar.met for bar in bars([good], []))
    assert [bar.name for bar in bars([good, bad], []) if not bar.met] == [
        "first culprit exact",
        "all culprits exact",
        "diagnosed",
    ]
