"""What a comparison with a sharded candidate will take, planned as it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from tests.verifier.bench.test_streaming import Slices
from tests.verifier.sharded.teams import compared
from verifier.cells import Cell, Request
from verifier.errors import UsageError
from verifier.estimate.memory import known
from verifier.inputs import Stream, tensors
from verifier.sharded.planned import estimated_sharded

if TYPE_CHECKING:
    from verifier.records import Estimate

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="needs gloo"
)

SINGLE = (Request(Cell.parse("cpu/float32")),)


class Net(nn.Sequential):
    """Counted where it runs."""

    def __init__(self, width: int = 6) -> None:
        super().__init__(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 5))


def planned(samples: int, width: int = 6) -> Estimate:
    return estimated_sharded(Net(width).eval(), tensors(torch.randn(samples, 4)), requests=SINGLE, of=2)


def test_the_passes_of_a_cell_are_planned_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two ranks the first runs the whole as well."""
    runs: list[int] = []

    def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(module, Net):
            runs.append(len(args[0]))

    torch.manual_seed(0)
    whole, parts = Net().eval(), [Net().eval() for _ in range(2)]
    for each in parts:
        each.load_state_dict(whole.state_dict())
    hook = nn.modules.module.register_module_forward_pre_hook(count)
    try:
        assert compared(monkeypatch, whole, parts, torch.randn(3, 4)).result.verdict == "match"
    finally:
        hook.remove()
    forwards = {
        phase.name: sum(each.passes for each in phase.forwards)
        for phase in planned(3).phases
        if phase.cell == "cpu/float64"
    }
    assert set(runs) == {3}
    assert len(runs) == 2 * forwards["the part, bare and watched"] + forwards["the whole, in two precisions"]


def test_more_numbers_take_more_memory_and_the_first_rank_the_most() -> None:
    if not known():
        pytest.skip("resident memory is not told here")
    small, large = planned(2), planned(3000, 3000)
    assert small.memory is not None
    assert large.memory is not None
    assert large.others is not None
    numbers = 3000 * (4 + 2 * 3000 + 5)  # what one pass keeps at least
    assert large.memory - small.memory > 8 * numbers
    assert large.memory > large.others > 8 * numbers
    assert {phase.cell for phase in large.phases} == {"", "cpu/float64", "cpu/float32"}


def test_one_process_holds_nothing_between_several_and_no_stream_is_compared() -> None:
    x = torch.randn(2, 4)
    with pytest.raises(UsageError, match="--ranks N"):
        estimated_sharded(Net(), tensors(x), requests=SINGLE, of=1)
    with pytest.raises(UsageError, match="give --input"):
        estimated_sharded(Net(), Stream(Slices(x, 1)), requests=SINGLE, of=2)
