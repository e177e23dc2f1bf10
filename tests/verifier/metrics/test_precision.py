"""What a dtype does to a tensor, against numpy's own notion of its dtypes and against counting by hand."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cuda import needs_cuda, not_waiting
from verifier.metrics import precision
from verifier.metrics.kernel_cpu import BLOCK
from verifier.metrics.kernel_torch import CHUNK_CPU
from verifier.metrics.precision import collect, read
from verifier.records import Precision, to_builtins

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

INF, NAN = math.inf, math.nan
NUMPY: dict[torch.dtype, Any] = {
    torch.float16: np.float16,
    torch.float32: np.float32,
    torch.float64: np.float64,
}
IEEE = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
NARROW = [torch.float8_e5m2, torch.float8_e4m3fn, torch.float16, torch.bfloat16]
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def precision_of(oracle: torch.Tensor, baseline: torch.Tensor, candidate: torch.Tensor) -> Precision:
    (found,) = collect([read(oracle, baseline, candidate)])
    return found


def numbers(values: list[float], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).to(dtype)


def from_bits(bits: list[int], dtype: torch.dtype) -> torch.Tensor:
    """Patterns of the dtype's width, given as unsigned numbers."""
    width = 8 * dtype.itemsize
    signed = [value - (1 << width) if value >> (width - 1) else value for value in bits]
    return torch.tensor(signed, dtype=BITS[dtype.itemsize]).view(dtype)


def exactly(tensor: torch.Tensor) -> NDArray[np.float64]:
    """Every number of these dtypes is a float64."""
    found: NDArray[np.float64] = tensor.contiguous().to(torch.float64).numpy().reshape(-1)
    return found


def smallest_normal(dtype: torch.dtype) -> float:
    if dtype is torch.bfloat16:
        return float(np.finfo(np.float32).smallest_normal)  # it has float32's exponents
    return float(np.finfo(NUMPY[dtype]).smallest_normal)


def rank(value: float, dtype: torch.dtype) -> int:
    """How many steps a number lies above 0, by its value alone; infinity is the step after the largest."""
    digits = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}[dtype]
    if value <= 0:
        return -rank(-value, dtype) if value else 0
    if math.isinf(value):
        largest = float(torch.finfo(dtype).max)
        return rank(largest, dtype) + 1
    _, lowest = math.frexp(smallest_normal(dtype))
    fraction, exponent = math.frexp(value)
    octave = max(exponent - lowest, 0)
    step = octave * (1 << (digits - 1))
    in_octave = int(math.ldexp(fraction, digits + min(exponent - lowest, 0)))
    return step + in_octave


def expected(oracle: torch.Tensor, *tensors: torch.Tensor) -> Precision:
    right = exactly(oracle)
    over, invalid, under, subnormal = [], [], [], []
    for tensor in tensors:
        here = exactly(tensor)
        finite = np.isfinite(right)
        over.append(int((finite & np.isinf(here)).sum()))
        invalid.append(int((finite & np.isnan(here)).sum()))
        tiny = np.abs(right) < (smallest_normal(tensor.dtype) if tensor.is_floating_point() else INF)
        under.append(int((finite & (right != 0) & tiny & (here == 0)).sum()))
        subnormal.append(int(((here != 0) & (np.abs(here) < smallest_normal(tensor.dtype))).sum()))
    one, other = tensors
    ulps = [
        abs(rank(x, one.dtype) - rank(y, one.dtype))
        for x, y in zip(exactly(one).tolist(), exactly(other).tolist(), strict=True)
        if one.dtype == other.dtype and not math.isnan(x) and not math.isnan(y)
    ]
    whole = BITS[one.element_size()]
    same = one.dtype == other.dtype and one.view(whole).tolist() == other.view(whole).tolist()
    return Precision(
        overflowed=(over[0], over[1]),
        invalid=(invalid[0], invalid[1]),
        underflowed=(under[0], under[1]),
        subnormal=(subnormal[0], subnormal[1]),
        ulp_max=max(ulps) if ulps else None,
        ulp_mean=sum(ulps) / len(ulps) if ulps else None,
        bit_exact=same,
        elements=oracle.numel(),
    )


def patterns(dtype: torch.dtype) -> st.SearchStrategy[int]:
    """Any bits; the borders of zero, subnormal and normal numbers, of infinity and of NaN often."""
    width = 8 * dtype.itemsize
    sign = 1 << (width - 1)
    limits = precision.FORMATS[dtype]
    borders = [0, 1, limits.normal - 1, limits.normal, limits.largest - 1, limits.largest]
    borders += [limits.largest + 1, sign - 1]
    return st.integers(0, 2 * sign - 1) | st.sampled_from([bits + s for bits in borders for s in (0, sign)])


@st.composite
def triples(draw: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    one, other = draw(
        st.sampled_from(IEEE).flatmap(lambda dtype: st.just((dtype, dtype)))
        | st.tuples(*[st.sampled_from(IEEE)] * 2)
    )
    size = draw(st.integers(0, 12))
    oracle, baseline = (
        from_bits(draw(st.lists(patterns(dtype), min_size=size, max_size=size)), dtype)
        for dtype in (torch.float64, one)
    )
    if draw(st.booleans()):
        oracle = baseline.double()
    candidate = (
        baseline.clone()
        if one == other and draw(st.booleans())
        else from_bits(draw(st.lists(patterns(other), min_size=size, max_size=size)), other)
    )
    return oracle, baseline, candidate


@given(triples())
def test_any_bits_are_read_as_their_values_say(
    triple: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    assert precision_of(*triple) == expected(*triple)


@given(triples())
def test_so_they_are_without_a_compiler(triple: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "_loop", lambda: None)
        assert precision_of(*triple) == expected(*triple)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("alike", [True, False])
def test_blocks_of_every_kind_add_up(dtype: torch.dtype, alike: bool) -> None:
    """Ordinary blocks, blocks with zeros, subnormal numbers, infinities and NaN, and a last one that is not full."""
    generator = torch.Generator().manual_seed(0)
    oracle = torch.randn(5 * BLOCK + 7, generator=generator, dtype=torch.float64)
    oracle[BLOCK : 2 * BLOCK].relu_()
    oracle[2 * BLOCK : 3 * BLOCK] *= smallest_normal(dtype)
    oracle[3 * BLOCK : 4 * BLOCK : 3] *= 1e300
    oracle[4 * BLOCK + 5] = NAN
    baseline = oracle.to(dtype)
    candidate = baseline.clone() if alike else (oracle * (1 + 3e-2)).to(dtype)
    baseline[4 * BLOCK] = candidate[4 * BLOCK] = NAN
    assert precision_of(oracle, baseline, candidate) == expected(oracle, baseline, candidate)


@pytest.mark.parametrize("dtype", NARROW)
def test_every_value_of_a_narrow_dtype_stands_in_its_place(dtype: torch.dtype) -> None:
    """All values in order, told apart by nothing but their size: a value's place there is its rank."""
    everything = torch.arange(1 << 8 * dtype.itemsize).to(BITS[dtype.itemsize]).view(dtype)
    values = exactly(everything)
    order = np.unique(values[~np.isnan(values)])
    shuffled = everything[torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))]
    places = [np.searchsorted(order, exactly(each)) for each in (everything, shuffled)]
    counted = ~np.isnan(values) & ~np.isnan(exactly(shuffled))
    distances = np.abs(places[0] - places[1])[counted]
    found = precision_of(everything.double(), everything, shuffled)
    assert (found.ulp_max, found.ulp_mean) == (distances.max(), distances.mean())
    if dtype in IEEE:
        ranks = [rank(value, dtype) for value in order]
        assert np.diff(ranks).tolist() == [1] * (len(order) - 1)  # as the oracle of the tests above has it


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [0, 1, 2, 7])
@pytest.mark.parametrize(
    "start", [0.0, -0.0, 1.0, -1.0, 6e-8, -5e-324, 1e-45, 65504.0, 1.5, 2.0**-14, 1.7976931348623157e308]
)
def test_distances_count_numpys_next_values(dtype: torch.dtype, steps: int, start: float) -> None:
    kind: Any = NUMPY[dtype]
    with np.errstate(all="ignore"):
        here = there = kind(start)
        taken = 0
        for _ in range(steps):
            further = np.nextafter(there, kind(INF))
            taken += int(further != there)
            there = further
    a, b = torch.from_numpy(np.array([here])), torch.from_numpy(np.array([there]))
    for one, other in ((a, b), (b, a), (-a, -b)):
        assert precision_of(one.double(), one, other).ulp_max == taken


@pytest.mark.parametrize("dtype", IEEE)
def test_the_farthest_numbers_do_not_overflow(dtype: torch.dtype) -> None:
    a, b = numbers([-INF, INF, 1.0, NAN, 0.0], dtype), numbers([INF, -INF, 1.0, 1.0, -0.0], dtype)
    whole = 2 * rank(INF, dtype)
    found = precision_of(a.double(), a, b)
    assert (found.ulp_max, found.ulp_mean) == (whole, 2 * whole / 4)
    assert whole == 2 * int(torch.tensor(INF, dtype=dtype).view(BITS[dtype.itemsize]))


def test_the_mean_is_exact_over_many_chunks_of_far_numbers() -> None:
    n = 3 * CHUNK_CPU + 5
    a = torch.full((n,), -INF, dtype=torch.float64)
    b = torch.full((n,), INF, dtype=torch.float64)
    b[7] = -INF
    found = precision_of(a, a, b)
    assert found.ulp_max == 2 * (0x7FF << 52)
    assert found.ulp_mean == found.ulp_max * (n - 1) / n


def test_small_distances_of_float64_are_not_lost_among_large_ones() -> None:
    a = torch.tensor([1.0, 1.0], dtype=torch.float64)
    b = torch.tensor([1.0, 1 + 3 * 2.0**-52], dtype=torch.float64)
    assert precision_of(a, a, b).ulp_mean == 1.5


def test_casting_overflows_underflows_and_makes_subnormal_numbers() -> None:
    oracle = torch.tensor([1e5, -1e5, 1e-9, -1e-9, 0.0, 1e-6, 1.0, INF, NAN], dtype=torch.float64)
    found = precision_of(oracle, oracle.half(), oracle.bfloat16())
    assert found == Precision(
        overflowed=(2, 0),
        invalid=(0, 0),
        underflowed=(2, 0),
        subnormal=(1, 0),
        ulp_max=None,
        ulp_mean=None,
        bit_exact=False,
        elements=9,
    )


def test_what_is_not_finite_in_the_oracle_is_nobodys_fault() -> None:
    oracle = numbers([INF, -INF, NAN, INF], torch.float64)
    found = precision_of(
        oracle, numbers([INF, INF, 0.0, 0.0], torch.float16), numbers([NAN] * 4, torch.float16)
    )
    assert {found.overflowed, found.invalid, found.underflowed} == {(0, 0)}
    assert (found.ulp_max, found.ulp_mean, found.bit_exact) == (None, None, False)


def test_float8_without_infinities_turns_invalid_not_infinite() -> None:
    oracle = numbers([1e5, 448.0, 2.0**-9, 1e-9, 0.0], torch.float64)
    nan = from_bits([0x7F], torch.float8_e4m3fn)
    candidate = torch.cat([nan, numbers([448.0, 2.0**-9, 1e-9, 0.0], torch.float8_e4m3fn)])
    found = precision_of(oracle, candidate, candidate)
    assert (found.overflowed, found.invalid) == ((0, 0), (1, 1))
    assert (found.underflowed, found.subnormal) == ((1, 1), (1, 1))
    assert (found.ulp_max, found.bit_exact) == (0, True)


def test_signs_of_zero_and_nan_payloads_are_bits_but_no_distance() -> None:
    a = from_bits([0x0000, 0x7E00], torch.float16)
    for bits in ([0x8000, 0x7E00], [0x0000, 0x7E01], [0x0000, 0xFE00]):
        found = precision_of(torch.zeros(2, dtype=torch.float64), a, from_bits(bits, torch.float16))
        assert (found.bit_exact, found.ulp_max, found.ulp_mean, found.invalid) == (False, 0, 0.0, (1, 1))


def test_integers_have_bits_and_zeros_alone() -> None:
    oracle = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
    a, b = torch.tensor([0, 1, 0]), torch.tensor([0, 1, 2])
    found = precision_of(oracle, a, b)
    assert (found.underflowed, found.bit_exact, found.ulp_max) == ((1, 0), False, None)
    assert precision_of(oracle, b, b.clone()).bit_exact is True
    assert precision_of(oracle, b.bool(), b.bool()).bit_exact is True


def test_equal_values_of_two_dtypes_are_not_equal_bits() -> None:
    ones = torch.ones(3, dtype=torch.float64)
    found = precision_of(ones, ones.half(), ones.float())
    assert (found.bit_exact, found.ulp_max, found.ulp_mean) == (False, None, None)


@functools.cache
def counted(dtype: torch.dtype) -> Precision:
    return expected(
        *(each.reshape(-1) for each in (crooked(torch.float64, 1), crooked(dtype, 1), crooked(dtype, 2)))
    )


def crooked(dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Numbers around the edges of float16, zeros, infinities and NaN among them."""
    generator = torch.Generator().manual_seed(seed)
    exponents = 60 * torch.rand((3, 40, 50, 41), generator=generator) - 30
    x = torch.randn(exponents.shape, generator=generator) * 2**exponents
    x.view(-1)[seed::97] = 0
    x.view(-1)[seed::9973] = INF
    x.view(-1)[seed::9967] = NAN
    return x.to(dtype)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "gaps": lambda x: torch.stack([x, x + 1], dim=-1)[..., 0],
}


@pytest.mark.parametrize("dtype", IEEE)
@pytest.mark.parametrize(
    "layouts", [("channels_last",) * 3, ("transposed", "gaps", "contiguous"), ("gaps",) * 3]
)
def test_strides_and_chunks_do_not_matter(dtype: torch.dtype, layouts: tuple[str, str, str]) -> None:
    plain = crooked(torch.float64, 1), crooked(dtype, 1), crooked(dtype, 2)
    assert plain[0].numel() > 3 * CHUNK_CPU
    wanted = counted(dtype)
    assert precision_of(*plain) == wanted
    assert min(wanted.overflowed + wanted.underflowed + wanted.subnormal) > 0 or dtype is not torch.float16
    turned = [LAYOUTS[layout](each) for layout, each in zip(layouts, plain, strict=True)]
    assert [each.is_contiguous() for each in turned] == [layout == "contiguous" for layout in layouts]
    assert precision_of(*turned) == wanted


def test_a_number_repeated_by_a_stride_of_zero_counts_every_time() -> None:
    few = torch.tensor([1e-9], dtype=torch.float64).expand(4, 5)
    found = precision_of(few, few.half(), torch.zeros((), dtype=torch.float16).expand(4, 5))
    assert (found.underflowed, found.elements, found.ulp_max) == ((20, 20), 20, 0)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2)])
def test_scalars_and_nothing_are_read(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    found = precision_of(x.double(), x, x)
    assert (found.elements, found.bit_exact) == (x.numel(), True)
    assert (found.ulp_max, found.ulp_mean) == ((0, 0.0) if x.numel() else (None, None))


def test_flushing_subnormal_numbers_changes_nothing() -> None:
    tiny = torch.tensor([1e-310, 0.0, 1.0], dtype=torch.float64)
    low = torch.tensor([1e-40, 0.0, 1.0])
    wanted = expected(tiny, low, low)
    try:
        if not torch.set_flush_denormal(True):
            pytest.skip("this CPU cannot flush")
        assert precision_of(tiny, low, low) == wanted
    finally:
        torch.set_flush_denormal(False)


def test_readings_merge_into_that_of_the_whole() -> None:
    parts = [crooked(torch.float64, 3), crooked(torch.bfloat16, 3), crooked(torch.bfloat16, 5)]
    halves = [read(*(part[k : k + 1] for part in parts)) for k in range(3)]
    (merged,) = collect([functools.reduce(precision.Reading.merge, halves)])
    assert merged == precision_of(*parts)
    with pytest.raises(ValueError, match="merge"):
        halves[0].merge(read(parts[0], parts[0], parts[0]))


def test_many_readings_are_collected_in_order() -> None:
    triples_ = [
        (crooked(torch.float64, k), crooked(dtype, k), crooked(dtype, k + 1)) for k, dtype in enumerate(IEEE)
    ]
    nothing = torch.zeros(0, dtype=torch.float64)
    readings = [read(*each) for each in triples_]
    found = collect([readings[0], read(nothing, nothing, nothing), *readings[1:]])
    assert found.pop(1).elements == 0
    assert found == [precision_of(*each) for each in triples_]
    assert collect([]) == []


def test_tensors_are_not_changed_and_may_carry_gradients() -> None:
    x = crooked(torch.float32, 4)
    before = x.clone()
    read(x.double(), x.requires_grad_(), x)
    assert torch.equal(x.detach().view(torch.int32), before.view(torch.int32))
    with torch.inference_mode():
        precision_of(torch.ones(2, dtype=torch.float64), torch.ones(2), torch.ones(2))


@pytest.mark.parametrize(
    ("oracle", "baseline", "candidate", "said"),
    [
        (torch.ones(2), torch.ones(2), torch.ones(2), "must be float64"),
        (torch.ones(2).double(), torch.ones(3), torch.ones(2), r"\(3,\).*\(2,\)"),
        (torch.ones(2).double(), torch.ones(2), torch.ones(1, 2), r"\(1, 2\)"),
        (torch.ones(2).double(), torch.ones(2) + 0j, torch.ones(2), "complex64"),
        (torch.ones(2).double(), torch.ones(2), torch.ones(2).to(torch.float8_e5m2fnuz), "e5m2fnuz"),
        (torch.ones(2).double(), torch.ones(2).to_sparse(), torch.ones(2), "strided"),
    ],
)
def test_what_cannot_be_read_is_refused(
    oracle: torch.Tensor, baseline: torch.Tensor, candidate: torch.Tensor, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read(oracle, baseline, candidate)


def test_the_record_is_json() -> None:
    ones = torch.ones(3, dtype=torch.float64)
    found = precision_of(ones, ones.half(), ones.half())
    assert msgspec.convert(to_builtins(found), Precision) == found


@needs_cuda
@pytest.mark.parametrize("dtype", [*IEEE, torch.float8_e5m2, torch.int32])
def test_a_cuda_device_counts_the_same_and_does_not_wait(dtype: torch.dtype) -> None:
    right, one, other = crooked(torch.float64, 1), crooked(torch.float64, 1), crooked(torch.float64, 2)
    if dtype is torch.int32:
        one, other = one.nan_to_num(0, 9, 9).clamp(-9, 9), other.nan_to_num(0, 9, 9).clamp(-9, 9)
    here = right, one.to(dtype), other.to(dtype)
    there = [each.cuda() for each in here]
    with not_waiting():
        reading = read(*there)
    assert reading.rows.is_cuda
    wanted = precision_of(*here)
    assert collect([reading, read(*here)]) == [wanted, wanted]
    assert collect([read(here[0], there[1], here[2])]) == [wanted]
