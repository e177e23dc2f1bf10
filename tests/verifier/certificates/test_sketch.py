"""What sketches say of two tensors that never met, against the same figures of both tensors in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.sweeps import swept
from verifier.certificates import bits, sketch
from verifier.certificates.summary import bits_of, compared, summarise
from verifier.metrics import collect, compare, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from verifier.records import Comparison

DRAWS = 1000
ERRORS = (1e-13, 1e-3, 1.0)
SIZES = (500, 1000, 5000, 20000)


def exact(a: Tensor, b: Tensor) -> Comparison:
    (moments,) = collect([measure(a, b)])
    return compare(moments)


def shifting_signs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets every draw have signs of its own: the interval speaks of the mean over signs."""
    found = np.random.default_rng(7)

    def shift() -> None:
        made = torch.from_numpy(found.integers(0, 2, max(SIZES), dtype=np.int8) * 2 - 1)
        monkeypatch.setattr(sketch.signs, "_made", {torch.device("cpu"): made})
        sketch.of_ones.cache_clear()

    return shift


def test_intervals_hold_the_exact_figures_of_dense_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    shift = shifting_signs(monkeypatch)
    generator = torch.Generator().manual_seed(3)
    held = {"mse": 0, "nrmse": 0, "one_minus_pearson": 0}
    biases: list[float] = []
    for draw in range(DRAWS):
        shift()
        size = SIZES[draw % len(SIZES)]
        a, d = torch.randn(2, size, generator=generator, dtype=torch.float64)
        a = a + 0.5
        b = a + ERRORS[draw % len(ERRORS)] * d
        told, known = compared(summarise(a), summarise(b)), exact(a, b)
        assert told.interval is not None
        for name in held:
            low, high = getattr(told.interval, name)
            held[name] += low <= getattr(known, name) <= high
        biases.append(told.mse / known.mse - 1)
    assert {name for name, count in held.items() if not 0.93 <= count / DRAWS <= 0.97} == set()
    spread = math.sqrt(2 / sketch.BUCKETS / DRAWS)
    assert abs(sum(biases) / DRAWS) < 4 * spread


def smooth(d: Tensor) -> Tensor:
    """Each element like its neighbours."""
    return torch.nn.functional.avg_pool1d(d[None, None], 65, 1, 32)[0, 0]


def some(share: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, d: torch.where(d.roll(1).abs() < share, d, 0.0)


KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "independent": lambda a, d: d,
    "of neighbours alike": lambda a, d: smooth(d),
    "in part the tensor itself": lambda a, d: a + d,
    "a gain": lambda a, d: a,
    "an offset, in part": lambda a, d: 1 + 0.1 * d,
    "of rounding": lambda a, d: (8 * a).round() / 8 - a,
    "in a tenth of the elements": some(0.1257),  # the normal distribution's tenth about 0
}
TAILS = {"a gain": ("mse", "nrmse")}  # whose correlation is that of equal tensors


SIZED = [(kind, size) for kind in KINDS for size in (1e-13, None) if size is None or "offset" not in kind]


@pytest.mark.parametrize(("kind", "size"), swept(SIZED, [("of neighbours alike", 1e-13)]))
def test_intervals_hold_the_exact_figures_for_differences_of_every_size(
    kind: str, size: float | None
) -> None:
    """With the signs that certificates have, over tensors of drawn sizes; an offset of 1e-13 drowns in rounding."""
    generator = torch.Generator().manual_seed(11)
    names = TAILS.get(kind, ("mse", "nrmse", "one_minus_pearson"))
    held = dict.fromkeys(names, 0)
    for _ in range(DRAWS):
        count = int(torch.randint(1000, 20_000, (1,), generator=generator))
        a, d = torch.randn(2, count, generator=generator, dtype=torch.float64)
        error = size or 10 ** float(-9 * torch.rand(1, generator=generator))
        a = a + 0.5
        b = a + error * KINDS[kind](a, d)
        told, known = compared(summarise(a), summarise(b)), exact(a, b)
        assert told.interval is not None
        for name in names:
            low, high = getattr(told.interval, name)
            held[name] += low <= getattr(known, name) <= high
    assert {name: count for name, count in held.items() if not 0.93 <= count / DRAWS <= 0.97} == {}


def test_a_difference_that_is_an_offset_is_told_exactly() -> None:
    a = torch.randn(9000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    told, known = compared(summarise(a), summarise(a + 1e-4)), exact(a, a + 1e-4)
    assert told.interval is not None
    assert told.mse == pytest.approx(known.mse, rel=1e-6)
    assert told.interval.mse == pytest.approx((known.mse, known.mse), rel=1e-6)


def one_channel(x: Tensor) -> Tensor:
    return x * (torch.arange(x.shape[1]) == 3)[None, :, None, None]


def one_place(x: Tensor) -> Tensor:
    return x * (torch.arange(x.shape[3]) == 2)


def one_sample(x: Tensor) -> Tensor:
    return x * (torch.arange(x.shape[0]) == 1)[:, None, None, None]


def heavy_tails(x: Tensor) -> Tensor:
    return x**5


def one_element(x: Tensor) -> Tensor:
    return x * (torch.arange(x.numel()).view(x.shape) == 77)


def every_bucketth(x: Tensor) -> Tensor:
    """All in one bucket: the worst there is."""
    return x * (torch.arange(x.numel()) % sketch.BUCKETS == 5).view(x.shape)


@pytest.mark.parametrize(
    "change",
    swept(
        [one_channel, one_place, one_sample, heavy_tails, one_element, every_bucketth],
        [heavy_tails, every_bucketth],
    ),
)
def test_intervals_are_not_too_narrow_for_differences_of_any_structure(
    change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = shifting_signs(monkeypatch)
    generator = torch.Generator().manual_seed(5)
    held, draws = 0, DRAWS // 2
    for _ in range(draws):
        shift()
        a, d = torch.randn(2, 2, 64, 7, 7, generator=generator, dtype=torch.float64)
        b = a + 1e-6 * change(d)
        told, known = compared(summarise(a), summarise(b)), exact(a, b)
        assert told.interval is not None
        low, high = told.interval.mse
        held += low * (1 - 1e-6) <= known.mse <= high * (1 + 1e-6)  # no closer than float64 has b - a
    assert held / draws >= 0.93, held / draws


def test_sketches_are_linear_and_show_an_error_of_1e_13() -> None:
    a, d = torch.randn(2, 3, 32, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = summarise(a).sketch - summarise(a + d).sketch
    assert np.abs(whole + summarise(d).sketch).max() < 1e-11
    told = compared(summarise(a), summarise(a + 1e-13 * d))
    assert told.interval is not None
    assert told.nrmse == pytest.approx(1e-13, rel=0.2)
    assert told.interval.nrmse[0] > 5e-14


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.uint8,
        torch.bool,
        torch.complex64,
    ],
)
def test_strides_change_no_bit_and_no_figure_beyond_rounding(dtype: torch.dtype) -> None:
    x = (torch.randn(2, 48, 40, 64, generator=torch.Generator().manual_seed(1)) * 50).to(dtype)
    one = summarise(x)
    for other in (
        x.contiguous(memory_format=torch.channels_last),
        x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        torch.stack([x, x], dim=-1)[..., 0],
    ):
        two = summarise(other)
        assert two.bits == one.bits == bits_of(other)
        assert np.abs(two.sketch - one.sketch).max() <= 1e-12 * max(1.0, np.abs(one.sketch).max())
        assert two.moments == pytest.approx(one.moments, rel=1e-12)
        assert (two.histogram == one.histogram).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_compiled_kernel_says_what_torch_says(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(700_001, generator=torch.Generator().manual_seed(2), dtype=dtype)
    one = summarise(x)
    for module in ("verifier.certificates.bits", "verifier.certificates.summary"):
        monkeypatch.setattr(f"{module}.compiled_kernel", lambda: None)
    two = summarise(x)
    assert one.bits == two.bits
    assert np.abs(two.sketch - one.sketch).max() < 1e-10
    assert two.moments == pytest.approx(one.moments, rel=1e-12, abs=1e-9)


def test_another_number_of_threads_changes_nothing_beyond_rounding() -> None:
    x = torch.randn(2, 64, 56, 56, generator=torch.Generator().manual_seed(4)).to(torch.bfloat16)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(summarise(x))
    finally:
        torch.set_num_threads(before)
    assert found[0].bits == found[1].bits
    assert np.abs(found[0].sketch - found[1].sketch).max() < 1e-10


def changes(x: Tensor) -> dict[str, Any]:
    """Tensors that differ in few bits, or hold the same numbers in another order."""
    negated, swapped = x.clone(), x.clone()
    negated[10:12] *= -1
    swapped[[0, 5000]] = swapped[[5000, 0]]
    last = x.clone()
    last[-1] = torch.nextafter(last[-1], torch.tensor(9.0, dtype=x.dtype))
    return {"two signs": negated, "swapped": swapped, "last bit": last, "rolled": x.roll(bits.ROW)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_hash_tells_tensors_apart_that_differ_in_one_bit_or_in_order(dtype: torch.dtype) -> None:
    x = torch.randn(20_000, dtype=dtype, generator=torch.Generator().manual_seed(6))
    hashes = {name: bits_of(tensor) for name, tensor in changes(x).items()}
    assert len({bits_of(x), *hashes.values()}) == 1 + len(hashes)


def test_what_is_masked_counts_apart_and_disagreement_is_infinite() -> None:
    x = torch.randn(4000, dtype=torch.float64)
    holed = x.clone()
    holed[[3, 50]] = torch.tensor([math.nan, -math.inf], dtype=torch.float64)
    same = compared(summarise(holed), summarise(holed.float()))
    assert same.nonfinite_mismatched == 0
    assert same.nrmse == pytest.approx(exact(holed, holed.float()).nrmse, rel=0.3)
    other = compared(summarise(x), summarise(holed))
    assert other.nonfinite_mismatched == 2
    assert not other.within(1e9)
    moved = holed.roll(1)
    assert not compared(summarise(holed), summarise(moved)).within(1e9)


def test_a_mask_is_the_lowest_number_of_any_dtype() -> None:
    x = torch.zeros(8, 8).masked_fill(torch.ones(8, 8).triu(1).bool(), torch.finfo(torch.float32).min)
    wide = torch.zeros(8, 8, dtype=torch.float64).masked_fill(
        torch.ones(8, 8).triu(1).bool(), torch.finfo(torch.float64).min
    )
    assert compared(summarise(x), summarise(wide)).nrmse == 0


def test_elements_that_change_places_in_one_bucket_are_told_though_their_signs_cancel() -> None:
    x = torch.randn(50_000, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    signs = sketch.signs(len(x), x.device)
    bucket = torch.arange(7, len(x), sketch.BUCKETS)
    one, two = bucket[signs[bucket] == 1][:2].tolist()
    other = x.clone()
    other[[one, two]] = x[[two, one]]
    assert np.abs(summarise(x).sketch - summarise(other).sketch).max() < 1e-13
    told = compared(summarise(x), summarise(other))
    assert told.interval is not None
    assert 1e-9 < told.interval.nrmse[0] <= exact(x, other).nrmse
    assert not told.within(1e-10)


def test_zeros_of_either_sign_are_one_number() -> None:
    x = torch.randn(1000).relu()
    told = compared(summarise(x), summarise(torch.where(x == 0, -x, x)))
    assert told.max_abs == 0
    assert told.interval is None
