"""The summary of a comparison of two trainings."""

from __future__ import annotations

import math

import msgspec
import pytest

from reports import wording
from reports.parity import headline, place, plain
from verifier.records import Coverage, Environment, ModelInfo, Verdict, WeightsInfo
from verifier.training.records import Allowed, Divergence, Phase, TensorRow, TrainingCause, TrainingParity

ALLOWED = Allowed(limit=1e-12, rule="1e-12 in float64")
FROZEN = Divergence(
    step=1,
    batch=3,
    phase=Phase.BACKWARD,
    what="gradient",
    tensor="conv1.weight",
    candidate="stem.conv\x1b[31m.weight",
    total=math.inf,
    intrinsic=math.inf,
    allowed=ALLOWED,
    reason="the candidate's has no gradient",
    cause=TrainingCause(code="frozen", summary="requires_grad is off", confirmed=True),
)


@pytest.fixture
def match() -> TrainingParity:
    model = ModelInfo(spec="net.py:net", type="Net", parameters=3, sites=2)
    row = TensorRow(
        phase=Phase.OPTIMISER,
        what="weight",
        tensor="conv1.weight",
        candidate="conv1.weight",
        shape=(2, 3),
        allowed=ALLOWED,
        culprit=False,
        first_step=None,
        total=(0.0, 3e-9),
        intrinsic=(0.0, 2e-14),
    )
    return TrainingParity(
        verdict=Verdict.MATCH,
        reason="",
        first_divergence=None,
        culprits=(),
        bit_exact=False,
        steps=2,
        batches=2,
        losses=((2.0, 2.0), (1.0, 1.0)),
        rates=((0.1, 0.1), (0.05, 0.05)),
        rows=(row,),
        baseline=model,
        candidate=model,
        baseline_procedure="sgd",
        candidate_procedure="sgd",
        data="digits",
        dtype="float64",
        device="cpu",
        coverage=Coverage(
            compared=2, baseline_sites=2, candidate_sites=2, baseline_share=1.0, candidate_share=1.0
        ),
        weights=WeightsInfo(mode="init"),
        notes=(),
        seed=0,
        environment=Environment(
            python="3.12", platform="p", processor="c", packages={}, devices=("cpu",), threads=2, flags={}
        ),
        command="",
        seconds=1.0,
        created="",
    )


def test_a_match_tells_rounding_in_one_phase_from_what_it_grew_to(match: TrainingParity) -> None:
    assert headline(match) == (
        "match: 2 steps agree in every phase, to 2e-14 on identical inputs; in free training rounding has taken the "
        "weights 3e-09 apart"
    )


def test_an_exact_match_says_so(match: TrainingParity) -> None:
    exact = msgspec.structs.replace(match, bit_exact=True)
    assert headline(exact) == "match: 2 steps of both trainings agree in every number, bit for bit"


def test_a_divergence_is_named_by_step_phase_tensor_and_cause(match: TrainingParity) -> None:
    parted = msgspec.structs.replace(
        match, verdict=Verdict.DIVERGED, first_divergence=FROZEN, culprits=(FROZEN, FROZEN)
    )
    assert headline(wording.shown(parted)) == (
        "diverged: step 1 (batch 3), backward, gradient of conv1.weight (candidate: stem.conv\\x1b[31m.weight): "
        "requires_grad is off (confirmed, frozen); 1 further tensor differs by itself"
    )


def test_what_has_no_tensor_is_named_once() -> None:
    rate = msgspec.structs.replace(
        FROZEN,
        phase=Phase.SCHEDULE,
        what="learning rate",
        tensor="learning rate",
        candidate="learning rate",
        batch=1,
    )
    assert place(rate) == "step 1, schedule, learning rate"


def test_the_summary_ends_with_its_page(match: TrainingParity) -> None:
    assert plain(match, page="out/training-parity.html").endswith("\nReport\n  out/training-parity.html\n")
    assert "Report" not in plain(match)


def test_the_summary_has_each_phase_and_no_control_characters(match: TrainingParity) -> None:
    text = plain(
        msgspec.structs.replace(match, verdict=Verdict.DIVERGED, culprits=(FROZEN,), first_divergence=FROZEN)
    )
    assert "\x1b" not in text
    assert "optimiser  1        2e-14                1e-12    3e-09" in text
