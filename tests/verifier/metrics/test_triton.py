"""The fused kernel says what the CPU's says: interpreted wherever Triton is, compiled where a device is.

`test_accuracy`, `test_definitions` and parts of `test_properties` put the interpreted kernel to the same tests as
the other reductions; here is what is its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.cuda import needs_cuda, not_waiting
from tests.sweeps import swept
from verifier.metrics import METRICS, Measurement, Moments, collect, kernel_torch, measure
from verifier.metrics.partials import WIDTH, Partials

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

NAN, INF = math.nan, math.inf
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
EXACT = (
    "elements",
    "finite",
    "nonfinite_baseline",
    "nonfinite_candidate",
    "nonfinite_mismatched",
    "mismatch_index",
    "max_abs",
    "max_abs_index",
    "identical",
)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def permuted(x: Tensor, order: tuple[int, ...]) -> Tensor:
    """The same tensor, its dimensions in memory in this order."""
    return x.permute(order).contiguous().permute(tuple(np.argsort(order).tolist()))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "two groups": lambda x: permuted(x, (2, 3, 0, 1)),
    "four groups": lambda x: permuted(x, (3, 2, 1, 0)),
}


def assert_same(fused: Moments, expected: Moments) -> None:
    for field in EXACT:
        assert getattr(fused, field) == getattr(expected, field), field
    for name, metric in METRICS.items():
        # Sums that nearly cancel are known to a part of their size, which is 1.
        assert metric(fused) == pytest.approx(metric(expected), rel=1e-9, abs=1e-13, nan_ok=True), name


def assert_nearly_same(fused: Moments, expected: Moments) -> None:
    """A product's rounding error in float32 is 6e-8 of it, and those of thousands of products largely cancel."""
    for field in EXACT:
        assert getattr(fused, field) == getattr(expected, field), field
    # Beside 1, and of 1 - r below what any rounding leaves, only the size of the error counts.
    least = {"pearson": 1e-7, "cosine": 1e-7, "sqnr_db": 1e-7, "one_minus_pearson": 1e-40}
    for name, metric in METRICS.items():
        close = pytest.approx(metric(expected), rel=1e-6, abs=least.get(name, 0.0), nan_ok=True)
        assert metric(fused) == close, name


@pytest.fixture(scope="session")
def fused(interpret: Any) -> Callable[..., Moments]:
    """The moments of a pair from the interpreted kernel, which must take it."""

    def reduce(
        baseline: Tensor, candidate: Tensor, offset: int = 0, programs: int = 3, *narrow_from: int
    ) -> Moments:
        queued = interpret(baseline, candidate, offset, programs, *narrow_from)
        assert isinstance(queued, Partials)
        assert queued.values.shape == (1 + programs, WIDTH)
        (moments,) = collect([Measurement(None, queued)])
        return moments

    return reduce


def on_cpu(baseline: Tensor, candidate: Tensor, offset: int = 0) -> Moments:
    (moments,) = collect([measure(baseline, candidate, offset)])
    return moments


@pytest.mark.parametrize("second", DTYPES, ids=str)
@pytest.mark.parametrize("first", DTYPES, ids=str)
def test_any_two_real_dtypes_are_compared_in_float64(
    first: torch.dtype, second: torch.dtype, fused: Any
) -> None:
    a, b = (3 * draw(70, 41)).relu().to(first), (3 * draw(70, 41, seed=1)).relu().to(second)
    x, y = a.double().numpy(), b.double().numpy()
    moments = fused(a, b)
    assert METRICS["mse"](moments) == pytest.approx(((y - x) ** 2).mean(), rel=1e-12)
    correlation = np.corrcoef(x.ravel(), y.ravel())[0, 1]
    assert METRICS["pearson"](moments) == pytest.approx(correlation, rel=1e-9, abs=1e-14)
    assert moments.max_abs == abs(y - x).max()
    assert moments.max_abs_index == tuple(np.unravel_index(abs(y - x).argmax(), x.shape))
    assert_same(moments, on_cpu(a, b))


def every_half(dtype: torch.dtype) -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_bit_pattern_of_a_half_is_itself(dtype: torch.dtype, fused: Any) -> None:
    every = every_half(dtype)
    if dtype == torch.bfloat16:  # the interpreter, unlike devices, widens its subnormals to other numbers
        every = every[(every == 0) | ~(every.float().abs() < torch.finfo(dtype).tiny)]
    moments = fused(every.float(), every)
    assert moments.identical
    assert moments.finite == int(every.isfinite().sum())


@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 769, 4095, 4097, 9001])
@pytest.mark.parametrize("programs", [1, 7])
def test_sizes_need_not_be_multiples_of_anything(n: int, programs: int, fused: Any) -> None:
    a = draw(n)
    b = a + 1e-3 * draw(n, seed=1)
    assert_same(fused(a, b, 0, programs), on_cpu(a, b))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_coordinate_is_the_first_of_the_largest(layout: Any, fused: Any) -> None:
    shape = (3, 5, 11, 13)
    a = draw(*shape).round()
    b = a + torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(2))  # many ties
    gap = (b.double() - a.double()).abs().numpy()
    moments = fused(layout(a), layout(b), 10)
    first, *rest = np.unravel_index(gap.argmax(), shape)
    assert moments.max_abs == gap.max()
    assert moments.max_abs_index == (first + 10, *rest)
    assert_same(moments, on_cpu(a, b, 10))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_first_mismatch_is_the_first_in_logical_order(layout: Any, fused: Any) -> None:
    a = draw(2, 4, 20, 30)
    b = a + 1e-3 * draw(2, 4, 20, 30, seed=1)
    b[0, 3, 1, 1] = b[1, 0, 0, 0] = b[0, 3, 1, 2] = NAN
    a[0, 3, 1, 2], a[1, 3, 2, 1] = NAN, INF
    moments = fused(layout(a), layout(b))
    assert moments.mismatch_index == (0, 3, 1, 1)
    assert_same(moments, on_cpu(a, b))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_identical_tensors_point_at_their_first_finite_element(layout: Any, fused: Any) -> None:
    a = draw(2, 4, 20, 30)
    assert fused(layout(a), layout(a.clone())).max_abs_index == (0, 0, 0, 0)
    a[0, 0] = a[0, 1, 0, :3] = NAN
    moments = fused(layout(a), layout(a.clone()))
    assert moments.identical
    assert moments.max_abs_index == (0, 1, 0, 3)


def test_the_largest_is_found_outside_the_sample_as_well_as_inside(fused: Any) -> None:
    """More elements than the frame's sample, so that some of them are not in it."""
    a = draw(9000)
    for place in range(4000, 4005):
        b = a.clone()
        b[place] += 1
        moments = fused(a, b)
        assert moments.max_abs_index == (place,)
        assert moments.max_rel == on_cpu(a, b).max_rel


def test_a_float32_subnormal_is_not_flushed_to_zero(fused: Any) -> None:
    a, b = 1e-42 * draw(999), 1e-42 * draw(999, seed=1)
    assert a.abs().max() < torch.finfo(torch.float32).tiny
    moments = fused(a, b)
    assert moments.max_abs > 0
    assert_same(moments, on_cpu(a, b))


def test_a_huge_mean_hides_no_tiny_variance(fused: Any) -> None:
    for dtype, mean, deviation in ((torch.float32, 1e6, 1.0), (torch.float64, 1e9, 1e-3)):
        a = mean + deviation * draw(9001).to(dtype)
        b = a + 1e-1 * deviation * draw(9001, seed=1).to(dtype)
        assert_same(fused(a, b), on_cpu(a, b))


def test_the_sample_follows_no_stride(fused: Any) -> None:
    """Channels of a channels-last tensor with means far apart: all of them must be in the sample."""
    a = draw(2, 64, 16, 16) * 1e-3 + 1e3 * torch.arange(64)[:, None, None] % 7
    b = 1.7 * a + 1e-6 * draw(2, 64, 16, 16, seed=1)
    a, b = (x.to(memory_format=torch.channels_last) for x in (a, b))
    assert_same(fused(a, b), on_cpu(a, b))


def spoilt(x: Tensor, value: float, place: tuple[int, int] = (33, 7)) -> Tensor:
    """A copy with another value at one place, which the frame's sample does not meet."""
    other = x.clone()
    other[place] = value
    return other


PLAIN, OTHER = draw(40, 411), draw(40, 411, seed=1)
LONE = torch.zeros(40, 411)
HARD: dict[str, tuple[Tensor, Tensor]] = {
    "close": (PLAIN, PLAIN + 1e-3 * OTHER),
    "as close as roundings": (PLAIN, PLAIN * (1 + 1e-7 * OTHER)),
    "identical": (PLAIN, PLAIN.clone()),
    "unrelated": (PLAIN, OTHER),
    "rectified": (PLAIN.relu(), (PLAIN + 1e-3 * OTHER).relu()),
    "bfloat16": (PLAIN.bfloat16(), (PLAIN + 1e-2 * OTHER).bfloat16()),
    "two dtypes": (PLAIN.half(), PLAIN + 1e-4 * OTHER),
    "nearly twice": (PLAIN, 2 * PLAIN + 1e-5 * OTHER),
    "exactly twice": (PLAIN, 2 * PLAIN),
    "huge mean": (1e6 + PLAIN, 1e6 + PLAIN + 0.1 * OTHER),
    "subnormal": (1e-42 * PLAIN, 1e-42 * OTHER),
    "constant": (torch.full((40, 411), 0.1), torch.full((40, 411), 0.3)),
    "zero": (torch.zeros(40, 411), PLAIN),
    "one element": (PLAIN, spoilt(PLAIN, 1.0)),
    "one element by little": (PLAIN, spoilt(PLAIN, float(PLAIN[33, 7]) * (1 + 1e-6))),
    "one element by much": (PLAIN, spoilt(PLAIN, 1e30)),
    "one element that is not zero": (spoilt(LONE, 1e-30), spoilt(LONE, 2e-30)),
    "not finite": (spoilt(PLAIN, INF), spoilt(PLAIN, NAN)),
    "masks": (spoilt(PLAIN, -3e38), spoilt(PLAIN + 1e-3 * OTHER, -3e38)),
    "large": (1e30 * PLAIN, 1e30 * PLAIN + 1e27 * OTHER),
    "small": (1e-30 * PLAIN, 1e-30 * PLAIN + 1e-33 * OTHER),
    "ties": (PLAIN.round(), PLAIN.round() + OTHER.round()),
    "ties in half precision": (PLAIN.bfloat16().round(), (PLAIN.round() + OTHER.round()).bfloat16()),
    "ties but for float64": (
        spoilt(spoilt(0 * PLAIN, -1.75), -1.75, (17, 11)).bfloat16(),
        spoilt(spoilt(0 * PLAIN, 2.0**-30), 2.0**-29, (17, 11)).bfloat16(),
    ),
    "ratios beyond float32": (
        spoilt(spoilt(PLAIN, 1e-40), 1e-44, (35, 7)),
        spoilt(spoilt(PLAIN, 0.5), 0.4, (35, 7)),
    ),
}


@pytest.mark.parametrize(("a", "b"), HARD.values(), ids=HARD.keys())
def test_products_in_float32_change_nothing_by_more_than_a_millionth(
    a: Tensor, b: Tensor, fused: Any
) -> None:
    assert_nearly_same(fused(a, b, 3, 3, 0), on_cpu(a, b, 3))


REFUSED: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "integers": lambda x: (x.to(torch.int32), x.to(torch.int32)),
    "one integer": lambda x: (x, x.to(torch.int64)),
    "complex": lambda x: (x.to(torch.complex64), x.to(torch.complex64)),
    "float8": lambda x: (x.to(torch.float8_e5m2), x.to(torch.float8_e5m2)),
    "different strides": lambda x: (x, x.to(memory_format=torch.channels_last)),
    "gaps": lambda x: (x[..., ::2], x[..., ::2]),
    "expanded": lambda x: (x[:1].expand(4, 6, 8, 10), x),
    "empty": lambda x: (x[:0], x[:0]),
    "negative view": lambda x: (torch.complex(x, x).conj().imag, x),
    "five groups": lambda x: (x.view(2, 2, 6, 8, 10).permute(4, 3, 2, 1, 0),) * 2,
}


@pytest.mark.parametrize("prepare", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_kernel_cannot_read_is_left_to_other_code(prepare: Any) -> None:
    kernel_triton = pytest.importorskip("verifier.metrics.kernel_triton")
    assert kernel_triton.reduce(*prepare(draw(4, 6, 8, 10)), 0, 3) is None


def test_partials_and_rows_are_collected_in_order(interpret: Any) -> None:
    a, b, c = draw(10), draw(1000), draw(3, 20)
    measurements = [
        Measurement(None, interpret(a, a + 1)),
        Measurement(None, kernel_torch.reduce(b, b + 2, 0)),
        Measurement(None, interpret(c, c + 3, 0, 5)),
        measure(c, c),
        Measurement(None, interpret(b, b + 4)),
    ]
    collected = collect(measurements)
    assert [moments.elements for moments in collected] == [10, 1000, 60, 60, 1000]
    assert [moments.max_abs for moments in collected] == pytest.approx([1, 2, 3, 0, 4], rel=1e-6)


def test_dimensions_that_follow_each_other_in_both_orders_are_one() -> None:
    merged = pytest.importorskip("verifier.metrics.kernel_triton").merged
    assert merged((24,), (1,)) == ((24,), (1,))
    # Channels-last of (2, 3, 4, 5): batch, height, width, channel in memory.
    assert merged((2, 4, 5, 3), (60, 5, 1, 20)) == ((2, 20, 3), (60, 1, 20))
    assert merged((5, 4, 3, 2), (1, 5, 20, 60)) == ((5, 4, 3, 2), (1, 5, 20, 60))


@pytest.mark.parametrize(
    ("dtype", "narrow", "row_major"),
    swept(
        [
            (*kind, row_major)
            for kind in [("bf16", True), ("fp32", True), ("fp32", False), ("fp64", False)]
            for row_major in (True, False)
        ],
        [("bf16", True, True), ("fp32", False, False)],
    ),
)
def test_the_kernel_compiles_for_a_device_that_is_not_there(
    dtype: str, narrow: bool, row_major: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler refuses some of what the interpreter runs."""
    triton = pytest.importorskip("triton")
    kernel_triton = pytest.importorskip("verifier.metrics.kernel_triton")
    compiler = pytest.importorskip("triton.compiler")
    target = pytest.importorskip("triton.backends.compiler").GPUTarget("cuda", 80, 32)
    if "nvidia" not in pytest.importorskip("triton.backends").backends:
        pytest.skip("this Triton compiles for no CUDA device")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {
        "row_major": row_major,
        "narrow": narrow,
        "sample": kernel_triton.SAMPLE,
        "lines": kernel_triton.LINES,
        "together": 8 if dtype == "bf16" else 4,
        "block": kernel_triton.BLOCK,
    }
    types = {"a": f"*{dtype}", "b": f"*{dtype}", "rows": "*fp64"}
    names = kernel_triton.reduce_share.arg_names
    source = compiler.ASTSource(
        kernel_triton.reduce_share,
        {name: "constexpr" if name in constants else types.get(name, "i32") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    compiled = triton.compile(source, target=target, options={"enable_fp_fusion": kernel_triton.FUSION})
    assert ".visible .entry" in compiled.asm["ptx"]
    arithmetic = [line for line in compiled.asm["ptx"].splitlines() if ".f32" in line]
    # A subnormal difference that is flushed to zero would be taken for none.
    assert not [line for line in arithmetic if "sub.ftz" in line or "add.ftz" in line or "fma.rn.ftz" in line]


@needs_cuda
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("second", DTYPES, ids=str)
@pytest.mark.parametrize("first", DTYPES, ids=str)
def test_the_compiled_kernel_says_what_the_cpu_says(
    first: torch.dtype, second: torch.dtype, layout: Any
) -> None:
    for shape in ((3, 5, 7, 11), (4, 64, 56, 57)):
        a = layout(draw(*shape).to(first))
        b = layout((draw(*shape) + 1e-2 * draw(*shape, seed=1)).to(second))
        measurement = measure(a.cuda(), b.cuda(), 3)
        assert isinstance(measurement.rows, Partials)
        (moments,) = collect([measurement])
        assert_nearly_same(moments, on_cpu(a, b, 3))


@needs_cuda
@pytest.mark.parametrize(("a", "b"), HARD.values(), ids=HARD.keys())
def test_products_in_float32_on_the_device_are_as_good(a: Tensor, b: Tensor) -> None:
    kernel_triton = pytest.importorskip("verifier.metrics.kernel_triton")
    (moments,) = collect([Measurement(None, kernel_triton.reduce(a.cuda(), b.cuda(), 3, 7, 0))])
    assert_nearly_same(moments, on_cpu(a, b, 3))


@needs_cuda
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_ugly_tensors_on_the_device_are_those_of_the_cpu(layout: Any) -> None:
    shape = (4, 16, 28, 29)
    plain = draw(*shape)
    ugly: dict[str, tuple[Tensor, Tensor]] = {
        "identical": (plain, plain.clone()),
        "constant": (torch.full(shape, 0.1), torch.full(shape, 0.3)),
        "zero": (torch.zeros(shape), plain),
        "subnormal": (1e-42 * plain, 1e-42 * draw(*shape, seed=1)),
        "huge mean": (1e6 + plain, 1e6 + plain + 1e-1 * draw(*shape, seed=1)),
        "twice": (plain.double(), 2 * plain.double() + 1e-6 * draw(*shape, seed=1)),
        "ties": (plain.round(), plain.round() + draw(*shape, seed=1).round()),
        "too large to square": (1e200 * plain.double(), 1e200 * draw(*shape, seed=1).double()),
        "NaN throughout": (torch.full(shape, NAN), torch.full(shape, NAN)),
    }
    a, b = plain.clone(), plain + 1e-3 * draw(*shape, seed=1)
    a[0, 0] = b[0, 0] = NAN
    a[1, 2, 3, 4], b[1, 2, 3, 5], a[2, 0, 0, 0], b[2, 0, 0, 0] = INF, NAN, INF, -INF
    ugly["nonfinite"] = (a, b)
    measured = [measure(layout(x).cuda(), layout(y).cuda()) for x, y in ugly.values()]
    assert all(isinstance(measurement.rows, Partials) for measurement in measured)
    for name, moments, (x, y) in zip(ugly, collect(measured), ugly.values(), strict=True):
        expected = on_cpu(x, y)
        for field in EXACT:
            assert getattr(moments, field) == getattr(expected, field), (name, field)
        for metric, function in METRICS.items():
            close = pytest.approx(function(expected), rel=1e-6, abs=1e-13, nan_ok=True)
            assert function(moments) == close, (name, metric)


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_bit_pattern_of_a_half_is_itself_on_the_device(dtype: torch.dtype) -> None:
    every = every_half(dtype)
    measurement = measure(every.float().cuda(), every.cuda())
    assert isinstance(measurement.rows, Partials)
    (moments,) = collect([measurement])
    assert moments.identical
    assert moments.finite == int(every.isfinite().sum())


@needs_cuda
def test_no_pair_waits_for_the_device() -> None:
    pairs = [(draw(8, 64, 56, 56).cuda(), draw(8, 64, 56, 56, seed=1).cuda()) for _ in range(3)]
    collect([measure(a, b) for a, b in pairs])  # compiles
    with not_waiting():
        measured = [measure(a, b) for a, b in pairs]
    assert len(collect(measured)) == 3


@needs_cuda
def test_odd_addresses_are_read_as_well() -> None:
    a, b = draw(100_001).cuda()[1:], draw(100_001, seed=1).cuda()[1:]
    measurement = measure(a, b)
    assert isinstance(measurement.rows, Partials)
    assert_nearly_same(*collect([measurement, measure(a.cpu(), b.cpu())]))


@needs_cuda
def test_any_device_may_be_the_current_one() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    a, b = draw(1000), draw(1000, seed=1)
    measured = [measure(a.to(device), b.to(device)) for device in ("cuda:0", "cuda:1")]
    for moments in collect(measured):
        assert_same(moments, on_cpu(a, b))
