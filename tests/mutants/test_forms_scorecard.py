"""A few of the faults and of the right forms that the scorecard of deployed forms is made of."""

from __future__ import annotations

import random

import pytest

from tests.mutants.forms.backend_faults import FAULTS as OF_COMPILERS
from tests.mutants.forms.benign import BENIGN
from tests.mutants.forms.graph_faults import FAULTS as OF_PROGRAMS
from tests.mutants.forms.networks import NETWORKS
from tests.mutants.forms.onnx_faults import FAULTS as OF_ONNX
from tests.mutants.forms.scoring import FormBenign, FormScore, draw, score, score_variant
from tests.mutants.forms_scorecard import bars, report

NUMBERS = [pytest.param(k, marks=() if k < 12 else pytest.mark.thorough) for k in range(150)]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.filterwarnings("ignore")  # the exporters warn of much
def test_a_fault_is_found_where_it_was_planted(number: int) -> None:
    fault = draw(random.Random(f"forms/{number}"))
    assert fault is not None
    found = score(fault)
    assert found.detected, str(found)
    assert found.site, str(found)
    assert found.stage, str(found)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=() if n % 2 else pytest.mark.thorough) for n, k in enumerate(sorted(BENIGN))],
)
@pytest.mark.filterwarnings("ignore")
def test_a_right_form_is_a_match(kind: str) -> None:
    rng = random.Random(f"forms/{kind}")
    found = score_variant(rng.choice(sorted(NETWORKS)), kind, rng)
    assert found.verdict == "match", str(found)


def test_a_fault_that_does_not_show_is_not_drawn() -> None:
    kinds = {fault.kind for k in range(8) if (fault := draw(random.Random(f"kinds/{k}"))) is not None}
    assert kinds <= {*OF_ONNX, *OF_PROGRAMS, *OF_COMPILERS}
    assert len(kinds) > 1


def test_the_card_names_what_was_missed() -> None:
    right = FormScore(0, "net", "dynamo", "dropped", "node", True, True, True, "", 0.1)
    missed = FormScore(1, "net", "script", "rewired", "other", True, False, False, "said", 0.1)
    alarm = FormBenign(0, "net", "renamed", "diverged", "said", 0.1)
    lines = report([right, missed], [alarm])
    assert any(line.startswith("first culprit right") and "MISSED" in line for line in lines)
    assert "  fault 1, net (script): rewired at other: said" in lines
    assert "  benign 0, net: renamed: said" in lines
    assert not all(bar.met for bar in bars([right, missed], [alarm]))
    assert all(bar.met for bar in bars([right], []))
