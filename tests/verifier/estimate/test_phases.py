"""What is planned is what runs."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from tests.verifier.bench.test_streaming import Slices
from verifier import verify
from verifier.cells import Cell, Request
from verifier.estimate import estimated
from verifier.inputs import Stream


class Net(nn.Sequential):
    """Small; counted where it runs."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


class Counted(Slices):
    """A stream that tells how many there are."""

    def __init__(self, whole: Tensor, size: int) -> None:
        super().__init__(whole, size)
        self.samples, self.batches = len(whole), len(self.parts)


def pictures(samples: int) -> Tensor:
    return torch.randn(samples, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def made(net: type[Net], inputs: object, cells: tuple[str, ...]) -> Counter[tuple[int, str]]:
    """The forward passes of a verification, by number of samples and dtype."""
    found: Counter[tuple[int, str]] = Counter()

    def count(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(module, Net):
            dtype = next(module.parameters()).dtype
            found[len(args[0]), str(dtype).removeprefix("torch.")] += 1

    torch.manual_seed(0)
    hook = nn.modules.module.register_module_forward_pre_hook(count)
    try:
        found_verdict = verify(net().eval(), net().eval(), inputs, cells=cells).verdict
    finally:
        hook.remove()
    assert found_verdict == "match"
    return found


def planned(
    net: type[Net], inputs: object, cells: tuple[str, ...], ranks: int = 1
) -> Counter[tuple[int, str]]:
    """Those that are planned."""
    torch.manual_seed(0)
    requests = [Request(Cell.parse(cell)) for cell in cells]
    found = estimated(net().eval(), net().eval(), inputs, requests=requests, of=ranks)
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
    assert planned(net, pictures(samples), cells) == made(net, pictures(samples), cells)


@pytest.mark.parametrize("samples", [3, 9, 12])
@pytest.mark.parametrize("cells", [("cpu/float32",), ("cpu/float64",), ("cpu/bfloat16",)])
def test_the_passes_over_a_stream_are_planned_as_they_are_made(samples: int, cells: tuple[str, ...]) -> None:
    plan, run = ((Stream(Counted(pictures(samples), 3))) for _ in range(2))
    assert planned(Net, plan, cells) == made(Net, run, cells)


def test_each_of_several_ranks_is_told_the_batches_of_the_last_one() -> None:
    """Of five batches, the last of one sample, two and a half are each rank's."""
    cells = ("cpu/float32",)
    alone, shared = (planned(Net, Stream(Counted(pictures(13), 3)), cells, ranks) for ranks in (1, 2))
    assert alone - shared == {(3, "float32"): 2 * 2}
    assert not shared - alone


def test_where_only_reading_tells_how_many_there_are_it_is_said() -> None:
    request = Request(Cell.parse("cpu/float32"))
    for source, samples in ((Slices(pictures(9), 3), None), (Counted(pictures(9), 3), 9)):
        found = estimated(Net().eval(), Net().eval(), Stream(source), requests=[request])
        assert (found.samples, found.uncounted) == (samples, samples is None)
        assert sum(phase.name == "passes" for phase in found.phases) == (1 if samples is None else 3)


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
