"""What is planned is what runs."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from verifier import verify
from verifier.cells import Cell, Request
from verifier.estimate import estimated


class Net(nn.Sequential):
    """Small; counted where it runs."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


def made(net: type[Net], samples: int, cells: tuple[str, ...]) -> Counter[tuple[int, str]]:
    """The forward passes of a verification, by number of samples and dtype."""
    found: Counter[tuple[int, str]] = Counter()

    def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(module, Net):
            dtype = next(module.parameters()).dtype
            found[len(args[0]), str(dtype).removeprefix("torch.")] += 1

    torch.manual_seed(0)
    hook = nn.modules.module.register_module_forward_pre_hook(count)
    try:
        found_verdict = verify(net().eval(), net().eval(), torch.randn(samples, 3, 8, 8), cells=cells).verdict
    finally:
        hook.remove()
    assert found_verdict == "match"
    return found


def planned(net: type[Net], samples: int, cells: tuple[str, ...]) -> Counter[tuple[int, str]]:
    """Those that are planned."""
    torch.manual_seed(0)
    requests = [Request(Cell.parse(cell)) for cell in cells]
    found = estimated(net().eval(), net().eval(), torch.randn(samples, 3, 8, 8), requests=requests)
    counts: Counter[tuple[int, str]] = Counter()
    for phase in found.phases:
        for each in phase.forwards:
            counts[each.samples, each.dtype] += each.passes
    return counts


class Casting(Net):
    """Converts at its end."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
        return y.float()


@pytest.mark.parametrize("net", [Net, Casting])
@pytest.mark.parametrize("samples", [2, 5])
@pytest.mark.parametrize("cells", [("cpu/float32",), ("cpu/float32", "cpu/bfloat16"), ("cpu/float64",)])
def test_the_passes_of_two_alike_are_planned_as_they_are_made(
    net: type[Net], samples: int, cells: tuple[str, ...]
) -> None:
    assert planned(net, samples, cells) == made(net, samples, cells)


def test_time_and_memory_are_told_by_cell() -> None:
    requests = [Request(Cell.parse(cell)) for cell in ("cpu/float32", "cpu/bfloat16")]
    found = estimated(Net().eval(), Net().eval(), torch.randn(4, 3, 8, 8), requests=requests, batch_size=2)
    assert found.alike
    assert found.seconds == pytest.approx(sum(phase.seconds for phase in found.phases))
    assert all(phase.seconds >= 0 for phase in found.phases)
    assert [phase.cell for phase in found.phases if phase.name == "passes"] == [
        *["cpu/float32"] * 2,
        *["cpu/bfloat16"] * 2,
    ]
    assert found.memory is None or found.memory > 1e8  # torch alone takes as much
