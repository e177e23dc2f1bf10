"""A correct port gives what the baseline gives, a faulty one does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.mutants.ports.catalogue import PORTS
from tests.mutants.ports.hosts import TOKENS, Host, bodies
from tests.mutants.ports.picture_regions import PICTURE
from tests.mutants.ports.scoring import PortScore, draw, score
from tests.mutants.scorecard import bars

ROUNDED = 1e-6  # some store weights or tables, rounded to float32


def made(region: Any, body: str | None, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = Host(region, body).double().eval()(x)
    return output


def given(inputs: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", sorted(PORTS))
def test_a_port_is_right_and_its_fault_shows(name: str) -> None:
    port, x = PORTS[name], given(PORTS[name].inputs)
    asked = made(port.baseline, None, x)
    torch.testing.assert_close(made(port.right, None, x), asked, atol=ROUNDED, rtol=0)
    wrong = made(port.wrong, None, x)
    assert wrong.shape == asked.shape
    assert (wrong - asked).abs().max() > 2 * ROUNDED


@pytest.mark.parametrize("inputs", [TOKENS, PICTURE])
def test_what_stands_around_a_port_changes_what_goes_in_and_comes_out(inputs: tuple[int, ...]) -> None:
    outputs = [made(lambda m, x: x, body, given(inputs)) for body in (None, *bodies(inputs))]
    for k, one in enumerate(outputs):
        assert all(one.shape == other.shape for other in outputs)
        assert not any(torch.allclose(one, other) for other in outputs[:k])


def test_every_kind_is_drawn_once_before_any_comes_again() -> None:
    first, second = ([draw(0, turn * len(PORTS) + k)[0] for k in range(len(PORTS))] for turn in range(2))
    assert sorted(first) == sorted(second) == sorted(PORTS)
    assert first != second


def test_a_port_is_scored_with_its_fault_and_without() -> None:
    found = score("constants of a hard swish", "gated norm")
    assert (found.detected, found.localised, found.diagnosed, found.control) == (True, True, True, "match")


def test_a_false_alarm_about_a_port_misses_its_bar() -> None:
    alarm = PortScore(0, "rotation", "attention", True, True, True, "diverged", "", "", 0.0)
    assert [bar.name for bar in bars([], [], [alarm]) if not bar.met] == ["ports, correct match"]
