"""On a CUDA device nothing waits until the end, and the numbers are those of the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.cuda import MARKS, not_waiting
from verifier.metrics import METRICS, collect, kernel_torch, measure

pytestmark = MARKS


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "gaps": lambda x: x[:, :, ::2],
    "half": lambda x: x.half(),
    "complex": lambda x: x.to(torch.complex64),
    "int64": lambda x: (1e3 * x).to(torch.int64),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_numbers_on_the_device_are_those_of_the_cpu(layout: object) -> None:
    assert callable(layout)
    a, b = layout(draw(4, 64, 112, 113)), layout(draw(4, 64, 112, 113) + 1e-3 * draw(4, 64, 112, 113, seed=1))
    x, y = a.cuda(), b.cuda()
    measure(x, y)  # compiles
    with not_waiting():
        measurement = measure(x, y)
    assert measurement.moments is None
    moments, expected = collect([measurement, measure(a, b)])
    for name, metric in METRICS.items():
        assert metric(moments) == pytest.approx(metric(expected), rel=1e-6), name
    assert moments.max_abs_index == expected.max_abs_index


def test_a_candidate_from_elsewhere_is_brought_to_the_baseline() -> None:
    a, b = draw(1000, 300), draw(1000, 300, seed=1)
    on_cpu, on_cuda, expected = collect([measure(a, b.cuda()), measure(a.cuda(), b), measure(a, b)])
    for moments in (on_cpu, on_cuda):
        assert METRICS["mse"](moments) == pytest.approx(METRICS["mse"](expected), rel=1e-12)
        assert moments.max_abs_index == expected.max_abs_index


def test_temporary_memory_on_the_device_is_that_of_a_chunk() -> None:
    x = torch.ones(8, kernel_torch.CHUNK, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    measure(x, x)
    assert torch.cuda.max_memory_allocated() - before < 16 * 8 * kernel_torch.CHUNK
