"""Measuring leaves the tensors, the modes and the memory of the process as they were."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sweeps import swept
from verifier.metrics import Measurement, collect, compare, kernel_torch, measure


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "prepare",
    [
        lambda x: x,
        lambda x: x.to(torch.bfloat16),
        lambda x: x.to(torch.float64),
        lambda x: x[:, ::2],
        lambda x: x.t(),
        lambda x: x.to(torch.complex64).conj(),
        lambda x: (2**60 * x).to(torch.int64),
    ],
    ids=["float32", "bfloat16", "float64", "gaps", "transposed", "conjugate", "int64"],
)
def test_neither_tensor_is_written_to(prepare: Any, reduce: Any) -> None:
    a, b = prepare(draw(400, 300)), prepare(draw(400, 300, seed=1))
    a_before, b_before = a.clone(), b.clone()
    a_version, b_version = a._version, b._version
    reduce(a, b)
    assert torch.equal(a, a_before)
    assert torch.equal(b, b_before)
    assert (a._version, b._version) == (a_version, b_version)


@pytest.mark.parametrize(
    ("dtype", "threads"),
    swept(
        itertools.product([torch.float32, torch.bfloat16, torch.int32], [1, 2]),
        lambda case: (
            case[1] == 1 or case[0] is torch.float32
        ),  # two threads wait for each other on a busy machine
    ),
)
def test_grad_and_inference_modes_make_no_difference(dtype: torch.dtype, threads: int, reduce: Any) -> None:
    a, b = (20 * draw(500, 500)).to(dtype), (20 * draw(500, 500, seed=1)).to(dtype)  # several pieces
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expected = reduce(a, b)
        with torch.inference_mode():
            x, y = a + 0, b + 0  # inference tensors
            assert reduce(x, y) == expected
        assert reduce(x, y) == expected
        assert reduce(a, y) == expected
        with torch.no_grad():
            assert reduce(a, b) == expected
        if dtype.is_floating_point:
            assert reduce(a.requires_grad_() * 1, b.requires_grad_() * 1) == expected
    finally:
        torch.set_num_threads(before)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_buffers_made_in_inference_mode_serve_outside_it(reduce: Any) -> None:
    """The first thing a thread ever measures may be measured in inference mode."""
    a, b = draw(300).to(torch.float16), draw(300, seed=1).to(torch.float16)
    results: list[Any] = []

    def work() -> None:
        with torch.inference_mode():
            results.append(reduce(a[::2], b[::2]))
        results.append(reduce(a[::2], b[::2]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(results) == 2
    assert results[0] == results[1]


def test_default_dtype_and_device_make_no_difference(reduce: Any) -> None:
    a, b = draw(3000), draw(3000, seed=1)
    expected = reduce(a, b)
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            assert reduce(a, b) == expected
            assert reduce(a[::3], b[::3]).finite == 1000
    finally:
        torch.set_default_dtype(torch.float32)


def test_threads_measuring_at_once_do_not_meet(reduce: Any) -> None:
    pairs = [(draw(1_200_000, seed=k).to(torch.bfloat16), draw(1_200_000, seed=k + 9)) for k in range(3)]
    expected = [reduce(a, b) for a, b in pairs]
    results: dict[int, Any] = {}

    def work(k: int) -> None:
        results[k] = [reduce(*pairs[k]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: [expected[k]] * 3 for k in range(3)}


def peak_growth(work: Any) -> int:
    """Bytes by which the resident set peaks above where it was. Linux alone can reset the peak."""
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def read(name: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return 1024 * int(line.split()[1])

    try:
        reset.write_text("5")
    except OSError:
        pytest.skip("the peak of resident memory cannot be reset here")
    before = read("VmRSS")
    work()
    return read("VmHWM") - before


@pytest.mark.parametrize(
    "prepare",
    [lambda x: x, lambda x: x[:, ::2], lambda x: x.t(), lambda x: x.to(torch.bfloat16)],
    ids=["float32", "gaps", "transposed", "bfloat16"],
)
def test_temporary_memory_does_not_grow_with_the_tensors(prepare: Any, reduce: Any) -> None:
    x = torch.ones(3000, 4000)  # the smallest copy of what is made of it takes 23 MiB
    a, b = prepare(x), prepare(x + 1)
    reduce(a[:50, :50], b[:50, :50])  # compiles, makes buffers and threads
    assert peak_growth(lambda: reduce(a, b)) < 16 * 2**20


def test_measurements_are_collected_in_order() -> None:
    a, b, c = draw(10), draw(20), draw(0)
    measurements = [
        measure(a, a + 1),
        Measurement(None, kernel_torch.reduce(b, b + 2, 0)),
        measure(c, c),
        Measurement(None, kernel_torch.reduce(c, c, 0)),
        Measurement(None, kernel_torch.reduce(a, a + 3, 0)),
    ]
    collected = collect(measurements)
    assert [moments.elements for moments in collected] == [10, 20, 0, 0, 10]
    assert [compare(moments).max_abs for moments in collected] == pytest.approx([1, 2, 0, 0, 3], rel=1e-6)
    assert collect([]) == []


def test_numba_is_imported_when_it_is_needed_and_missed_by_nobody() -> None:
    """Importing the package is cheap; without numba the answers are the same."""
    script = """
import sys, torch
import verifier.metrics as metrics
assert "numba" not in sys.modules
sys.modules["numba"] = None  # importing it now fails
a = torch.arange(10.0)
(moments,) = metrics.collect([metrics.measure(a, a + 1)])
assert metrics.compare(moments).mse == 1
from verifier.metrics.measure import slower_because
assert "numba" in slower_because(torch.device("cpu"))
assert "verifier.metrics.kernel_cpu" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
