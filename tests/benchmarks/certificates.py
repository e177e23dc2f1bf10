"""What certificates cost: size, and time beside bare forwards; `python tests/benchmarks/run.py certificates`."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tests.benchmarks.measuring import alternate, ratio
from verifier import record
from verifier.cells import Cell
from verifier.certificates.recording import alone
from verifier.certificates.summary import bits_of, summarise
from verifier.inputs import tensors
from verifier.lockstep import Plan, run
from verifier.models.copying import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from verifier.bench.bench import Bench


def resnet50() -> tuple[nn.Module, Any, str]:
    """ResNet-50, 2 pictures of 224 x 224."""
    import torchvision

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    return (
        torchvision.models.resnet50().eval(),
        torch.randn(2, 3, 224, 224, generator=generator),
        "calibrated",
    )


def gpt2() -> tuple[nn.Module, Any, str]:
    """GPT-2 of 124 M parameters, 2 x 128 tokens."""
    import transformers

    torch.manual_seed(0)
    model: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config(use_cache=False))
    model.eval()
    ids = torch.randint(0, 50257, (2, 128), generator=torch.Generator().manual_seed(0))
    return model, {"input_ids": ids}, "calibrated"


def certificates(rounds: int) -> None:
    """Sizes and times for both."""
    for make in (resnet50, gpt2):
        model, inputs, weights = make()
        print(f"\n{make.__doc__}")
        for mode in (weights, "as-is"):
            size = len(record(model, inputs, weights=mode).encoded())
            print(f"  certificate, {mode:12} {size / 1e6:6.2f} MB")
        for cell in (Cell("cpu", "float32"), Cell("cpu", "float64")):
            _times(_bench(model, inputs, cell), rounds)


def _bench(model: nn.Module, inputs: Any, cell: Cell) -> Bench:
    from verifier.bench.side import Side

    given = tensors(inputs)
    graph = Side.of("baseline", model, 0).record(given)
    return alone(model, graph, state_of(model), given).at(cell=cell)


def _one_run(bench: Bench, visit: Callable[[int, Sequence[Tensor]], None]) -> None:
    run([bench.lane("baseline")], Plan([bench.paired_sites("baseline")], []), visit=visit)


def _times(bench: Bench, rounds: int) -> None:
    from verifier.models.casting import arguments

    copied = bench.copied("baseline")
    args, kwargs = arguments(bench.inputs, bench.cell)

    def bare() -> None:
        with torch.no_grad():
            copied(*args, **kwargs)

    def watched(read: Callable[[Tensor], object]) -> Callable[[], None]:
        def visit(_: int, found: Sequence[Tensor]) -> None:
            read(found[0])

        return lambda: _one_run(bench, visit)

    seconds = alternate(
        {
            "bare forward": bare,
            "stopping at every site": watched(lambda _: None),
            "writing a certificate": watched(summarise),
            "comparing, all equal": watched(bits_of),
            "comparing, all differ": watched(summarise),
        },
        rounds,
    )
    base, stops = seconds["bare forward"], seconds["stopping at every site"]
    print(f"  {bench.cell.name}")
    for name, found in seconds.items():
        more = statistics.median((a - b) / c for a, b, c in zip(found, stops, base, strict=True))
        print(
            f"    {name:24} {statistics.median(found):6.2f} s   x {ratio(found, base):.2f} in all, "
            f"x {max(0.0, more):.2f} for reading"
        )
