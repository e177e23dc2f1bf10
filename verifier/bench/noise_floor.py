"""The noise floor of the machine: the baseline against itself, with nothing changed that should matter."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from verifier.cells import FORMATS
from verifier.errors import ModelError
from verifier.inputs.samples import batch_size, reversed_samples
from verifier.lockstep import Plan, run
from verifier.metrics import collect, compare, measure
from verifier.records import NoiseFloor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from verifier.bench.bench import Bench
    from verifier.lockstep import Lane
    from verifier.metrics import Measurement


# Pairs at which the baseline meets itself. What errors have added up to changes slowly from one site to the next, and
# each change of the number of threads costs more than a small operator.
_MEETINGS = 256


def noise_floor(bench: Bench) -> NoiseFloor:
    """Run the baseline side by side with itself in other circumstances, and keep the largest distance of any pair.

    The circumstances: another number of threads (on the CPU), the other memory format, and the samples in reverse
    order, so that each stands at another position of the batch. Distances are relative L2 errors (NRMSE) of
    what errors have added up to; one that could not be tried is None. In a network of more than `_MEETINGS`
    pairs they meet at every second, third ... pair, and at the last.
    """
    cell, every = bench.cell, bench.paired_sites("baseline")
    step = -(-len(every) // _MEETINGS) or 1
    sites = every[::-1][::step][::-1]
    samples = batch_size(bench.inputs)
    other = replace(cell, memory_format=FORMATS[1 - FORMATS.index(cell.memory_format)])
    lane: Callable[..., Lane] = partial(bench.lane, "baseline", stops=sites)
    made: dict[str, Callable[[], Lane]] = {
        "": lane,
        "layout": lambda: bench.at(cell=other).lane("baseline", stops=sites),
    }
    if not cell.is_cuda:
        made["threads"] = partial(lane, around=partial(_threads, 1 if torch.get_num_threads() > 1 else 2))
    if samples > 1:
        made["position"] = partial(lane, inputs=reversed_samples(bench.inputs))
    try:
        return _against_itself(bench, sites, made, samples)
    except ModelError:  # a model need not take the other memory format
        del made["layout"]
        return _against_itself(bench, sites, made, samples)


def _against_itself(
    bench: Bench, sites: Sequence[int], made: Mapping[str, Callable[[], Lane]], samples: int
) -> NoiseFloor:
    lanes = {name: make() for name, make in made.items()}
    names = list(lanes)
    found: dict[str, list[Measurement]] = {name: [] for name in names[1:]}

    def visit(_: int, tensors: Sequence[Tensor]) -> None:
        for name, tensor in zip(names[1:], tensors[1:], strict=True):
            turned = name == "position"
            if turned and not (tensor.dim() and tensor.shape[0] == samples):
                continue
            found[name].append(measure(tensors[0], tensor.flip(0) if turned else tensor))

    run(list(lanes.values()), Plan([sites] * len(lanes), []), bench.progress, visit=visit)
    return NoiseFloor(**{name: _largest(each) for name, each in found.items()})


def _largest(measurements: Sequence[Measurement]) -> float | None:
    errors = [compare(moments) for moments in collect(measurements)]
    return max((error.nrmse for error in errors if error.elements), default=None)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
