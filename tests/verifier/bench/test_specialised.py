"""What a captured program was specialised to is found with other sizes, settings and numbers, and named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from verifier import verify
from verifier.errors import ModelError
from verifier.records import Verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


class Sized(nn.Module):
    """(N, T, 6) to (N, T, 5), otherwise where T is above 4."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 5)

    def forward(self, x: Tensor, turned: bool = False) -> Tensor:
        made: Tensor = self.layer(x)
        made = -made if turned else made
        return made * 2 if x.shape[1] > 4 else made


class Branching(nn.Module):
    """(N, 6) to (N, 3), by one of two ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(6, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        made = self.layer(x)
        made = torch.relu(made) if x.mean() > 0 else torch.tanh(made)
        found: Tensor = self.head(made)
        return found


X = torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0))
POSITIVE = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) + 0.1


def exported(*given: Any, **dynamic: Any) -> Any:
    return torch.export.export(Sized().eval(), (X, *given), **dynamic)


def test_sizes_that_a_program_was_specialised_to_are_told_with_their_guards() -> None:
    found = verify(Sized().eval(), exported(), X)
    assert found.verdict is Verdict.MATCH
    assert found.notes == (
        "the candidate is made for 4 samples: it fails with others",
        "the candidate, an exported program, is specialised to batch 4 (guard: x.size()[0] == 4); "
        "the baseline takes others",
        "the candidate, an exported program, is specialised to size 7 of dimension 1 of x "
        "(guard: x.size()[1] == 7); the baseline takes others",
    )


def test_what_is_dynamic_is_not_told_but_for_the_branch_that_it_holds() -> None:
    auto = torch.export.Dim.AUTO
    found = verify(Sized().eval(), exported(dynamic_shapes=({0: auto, 1: auto},)), X)
    assert found.verdict is Verdict.MATCH
    (note,) = found.notes
    assert note == (
        "the candidate, an exported program, fails on size 3 in place of 7 (guard: x.size()[1] >= 5); "
        "the baseline takes others"
    )


def test_a_setting_that_is_a_constant_of_the_program_is_told() -> None:
    found = verify(Sized().eval(), exported(True), (X, True))
    assert any(
        note.startswith("the candidate, an exported program, fails on False in place of True")
        for note in found.notes
    )


def test_a_program_that_takes_another_size_and_does_otherwise_diverged() -> None:
    """A program whose branch is gone before it was captured, so that no guard tells of it."""

    class Unguarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Sized()

        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = self.inner.layer(x)
            return made * 2

    auto = torch.export.Dim.AUTO
    wrong = torch.export.export(Unguarded().eval(), (X,), dynamic_shapes=({0: auto, 1: auto},))
    found = verify(Sized().eval(), wrong, X)
    assert found.verdict is Verdict.DIVERGED
    (probe,) = found.probes
    assert probe.name == "size 3 in place of 7"


def test_what_a_program_refuses_as_given_is_told_with_its_guard() -> None:
    with pytest.raises(ModelError, match=r"Guard failed: x.size\(\)\[0\] == 4"):
        verify(Sized().eval(), exported(), X[:2])


def test_a_branch_that_was_traced_away_is_found_though_the_inputs_do_not_show_it() -> None:
    traced = torch.jit.trace(Branching().eval(), POSITIVE)  # type: ignore[no-untyped-call]
    found = verify(Branching().eval(), traced, POSITIVE)
    assert found.verdict is Verdict.DIVERGED
    (probe,) = found.probes
    assert (probe.name, probe.site) == ("negated numbers", "tanh")


def test_a_culprit_on_another_way_says_that_it_is_one() -> None:
    traced = torch.jit.trace(Branching().eval(), POSITIVE)  # type: ignore[no-untyped-call]
    found = verify(Branching().eval(), traced, -POSITIVE)
    (culprit,) = found.culprits
    assert (culprit.baseline, culprit.candidate) == ("tanh", "relu")
    assert culprit.cause is not None
    assert "the baseline takes that way too, for other numbers (negated numbers)" in culprit.cause.summary


def test_a_branch_that_the_program_has_too_matches() -> None:
    scripted = torch.jit.script(Branching().eval())
    for x in (POSITIVE, -POSITIVE):
        assert verify(Branching().eval(), scripted, x).verdict is Verdict.MATCH
