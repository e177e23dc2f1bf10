"""Each way a tensor can be wrong is planted and recognised, and nothing is where nothing is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.recognise.rounding import FORMATS
from verifier.recognise.slices import order_in_words
from verifier.recognise.values import relate

if TYPE_CHECKING:
    from verifier.recognise.relation import Deviation

SETTINGS = settings(max_examples=60, derandomize=True, deadline=None)
KINDS = {"shape", "swapped", "not-loaded", "rounded", "scaled", "shifted", "transposed", "permuted"} | {
    "nonfinite",
    "partial",
    "perturbed",
}
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
    torch.complex64,
]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def shuffled(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def found(candidate: torch.Tensor, baseline: torch.Tensor, **others: torch.Tensor) -> Deviation:
    relation = relate(candidate, baseline, others)
    assert relation is not None
    return relation


CONV = draw(16, 16, 3, 3)
LINEAR = draw(24, 24)
BIAS = draw(32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_said_of_equal_tensors(dtype: torch.dtype) -> None:
    tensor = (4 * CONV).to(dtype)
    assert relate(tensor.clone(), tensor) is None
    assert relate(tensor.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0), tensor) is None
    if dtype.is_floating_point:
        assert relate(tensor.to(torch.float64), tensor) is None


def test_nan_equals_nan_and_nothing_equals_nothing() -> None:
    tensor = torch.tensor([1.0, math.nan, math.inf])
    assert relate(tensor.clone(), tensor) is None
    assert relate(torch.empty(0, 3), torch.empty(0, 3)) is None


def test_another_tensor_in_its_place_is_named() -> None:
    assert found(draw(32, seed=1), BIAS, a=draw(32, seed=2), b=draw(32, seed=1)).summary == "is b's instead"
    relation = found(draw(32, seed=1).bfloat16(), BIAS, b=draw(32, seed=1))
    assert (relation.kind, relation.summary) == ("swapped", "is nearly b's instead")


def test_another_that_is_no_nearer_than_the_baseline_is_not_blamed() -> None:
    assert (
        found(BIAS + 1e-3 * draw(32, seed=1), BIAS, twin=BIAS + 1e-3 * draw(32, seed=2)).kind == "perturbed"
    )
    assert found(torch.ones(32), BIAS, ones=torch.ones(32)).kind == "not-loaded"


@pytest.mark.parametrize("value", [0, 1])
def test_initial_constants_were_not_loaded(value: int) -> None:
    relation = found(torch.full((32,), value), BIAS)
    assert (relation.kind, relation.summary) == ("not-loaded", f"is all {value}, as before loading")
    assert found(torch.tensor(0), torch.tensor(100)).kind == "not-loaded"


def test_a_layer_scale_of_one_constant_was_not_loaded() -> None:
    assert found(torch.full((32,), 1e-6), BIAS).kind == "not-loaded"


def test_a_fresh_draw_was_not_loaded() -> None:
    conv = torch.nn.Conv2d(16, 16, 3)
    relation = found(conv.weight, CONV)
    assert relation.kind == "not-loaded"
    assert "default initialisation" in relation.evidence[-1]


@pytest.mark.parametrize("name", FORMATS)
def test_rounding_names_the_format(name: str) -> None:
    baseline = draw(16, 16, 3, 3, dtype=torch.float64) if name == "float32" else CONV
    relation = found(FORMATS[name](baseline), baseline)
    assert relation.kind == "rounded"
    # within float16's range both keep 10 bits
    assert relation.summary == f"is rounded to {name}" or name in " ".join(relation.evidence)
    back = found(baseline, FORMATS[name](baseline))
    assert back.kind == "rounded"
    assert "is not rounded" in back.summary


ON_A_GRID = {
    "ones": torch.ones(16, 4),
    "powers of two": 2.0 ** torch.arange(-4, 4).repeat(8),
    "eighths": torch.arange(-32, 33) / 8,
    "one number": torch.full((24,), 1.125),
    "numbers of float8": CONV.to(torch.float8_e4m3fn).float(),
}
"""What several coarse formats hold as it is, so that rounding to them undoes a small gain."""


@pytest.mark.parametrize("kind", ON_A_GRID)
@pytest.mark.parametrize("gain", [1.01, 0.995, 1.003])
def test_a_small_gain_on_numbers_of_a_coarse_grid_is_told_as_a_gain(kind: str, gain: float) -> None:
    baseline = ON_A_GRID[kind]
    relation = found(baseline * gain, baseline)
    assert (relation.kind, relation.summary) == ("scaled", f"is {gain} x the baseline's")


@pytest.mark.parametrize("kind", ["ones", "powers of two"])
def test_noise_on_numbers_of_a_coarse_grid_is_no_rounding(kind: str) -> None:
    baseline = ON_A_GRID[kind]
    noisy = baseline * (1 + 0.01 * draw(*baseline.shape).clamp(-2, 2))
    assert found(noisy, baseline).kind != "rounded"


def test_a_constant_that_was_kept_in_bfloat16_is_rounded_and_no_gain() -> None:
    assert found(torch.full((9,), 0.1).bfloat16(), torch.full((9,), 0.1)).summary == "is rounded to bfloat16"


@pytest.mark.parametrize("expected", [1.0, 1.125, 3.0])
def test_a_single_number_that_is_one_percent_off_is_told_by_its_value(expected: float) -> None:
    relation = found(torch.tensor([1.01 * expected]), torch.tensor([expected]))
    assert relation.summary == f"is {1.01 * expected:.6g}, the baseline's {expected:g}"


@pytest.mark.parametrize(
    ("factor", "summary"),
    [
        (2.0, "is 2 x the baseline's"),
        (-1.0, "has the opposite sign"),
        (1 / 255, "is 1/255 x the baseline's"),
        (0.7071, "is 0.7071 x the baseline's"),
        (-255.0, "is -255 x the baseline's"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_a_factor_is_found(factor: float, summary: str, dtype: torch.dtype) -> None:
    baseline = CONV.to(dtype)
    relation = found(baseline * factor, baseline)
    assert relation.kind == "scaled"
    if dtype != torch.float16:
        assert relation.summary == summary


@pytest.mark.parametrize("offset", [1.0, 1e-2, -1e-3])
def test_an_offset_is_found(offset: float) -> None:
    relation = found(CONV + offset, CONV)
    assert relation.kind == "shifted"
    assert float(relation.evidence[0].split()[1]) == pytest.approx(offset, rel=1e-3)


def test_exchanged_axes_are_named() -> None:
    assert found(LINEAR.t(), LINEAR).summary == "is transposed"
    assert found(CONV.transpose(2, 3), CONV).summary == "has kernel rows and kernel columns exchanged"
    assert found(CONV.transpose(0, 1), CONV).summary == "has output channels and input channels exchanged"
    assert found(draw(5, 5, 5).permute(1, 2, 0), draw(5, 5, 5)).kind == "transposed"


def test_reversed_axes_are_named() -> None:
    relation = found(CONV.flip(2, 3), CONV)
    assert (relation.kind, relation.summary) == ("permuted", "has kernel rows and kernel columns reversed")


@pytest.mark.parametrize("axis", [0, 1])
def test_permuted_slices_are_found_exactly_and_after_rounding(axis: int) -> None:
    order = shuffled(16)
    candidate = CONV.index_select(axis, order)
    for held in (candidate, candidate.bfloat16()):
        relation = found(held, CONV)
        assert relation.kind == "permuted"
        assert ("output", "input")[axis] in relation.summary
        assert f"0 from {order[0]}" in relation.evidence[0]


def test_a_permuted_vector_with_repeated_values_is_found() -> None:
    baseline = torch.tensor([1.0, 2, 2, 3, 5, 5])
    assert found(baseline[[3, 0, 5, 2, 1, 4]], baseline).kind == "permuted"


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([3, 2, 1, 0], "in reverse order"),
        ([0, 3, 2, 1, 4], "1 and 3 exchanged"),
        ([2, 3, 4, 5, 0, 1], "rotated by 2 of 6"),
        ([2, 3, 0, 1, 4, 5], "blocks of 2 in the order 1, 0, 2"),
        ([0, 3, 1, 4, 2, 5], "interleaved, as after 2 groups of 3 were shuffled"),
        ([4, 0, 3, 1, 2], "5 of 5 moved: 0 from 4, 1 from 0, 2 from 3, 3 from 1, ..."),
    ],
)
def test_orders_are_put_into_words(order: list[int], words: str) -> None:
    assert order_in_words(order) == words


def test_a_few_wrong_slices_or_elements_are_listed() -> None:
    sliced, single = CONV.clone(), CONV.clone()
    sliced[3] = 0
    single[1, 2, 0, 1] += 1
    relation = found(sliced, CONV)
    assert (relation.kind, relation.summary) == ("partial", "differs in 1 of 16 output channels only (3)")
    assert "the candidate is 0 there" in relation.evidence
    assert found(single, CONV).kind == "partial"


def test_wrong_elements_that_share_no_slice_are_listed_by_place() -> None:
    candidate = LINEAR + torch.eye(24)
    relation = found(candidate, LINEAR)
    assert relation.summary == "differs in 24 of 576 elements only ((0, 0), (1, 1), (2, 2), ...)"


def test_numbers_that_are_none_are_counted() -> None:
    candidate = CONV.clone()
    candidate[0, 0, 0, :2] = torch.tensor([math.nan, math.inf])
    relation = found(candidate, CONV)
    assert relation.kind == "nonfinite"
    assert relation.evidence == ("2 of 2304 elements disagree, first (0, 0, 0, 0)", "the rest agrees")


def test_noise_is_a_perturbation_and_its_size_is_told() -> None:
    relation = found(CONV + 0.01 * draw(16, 16, 3, 3, seed=1), CONV)
    assert (relation.kind, relation.summary) == ("perturbed", "differs by 0.0099 of its size")
    assert (
        found(CONV * (1 + 1e-7 * draw(16, 16, 3, 3, seed=1)), CONV).summary
        == "differs in the last digits only"
    )


def test_one_element_is_told_as_it_is() -> None:
    assert found(torch.tensor(3.7), torch.tensor(2.5)).summary == "is 3.7, the baseline's 2.5"


def test_integers_beyond_float64_are_told_apart() -> None:
    baseline = torch.tensor([2**62, 5, 9])
    candidate = torch.tensor([2**62 + 1, 5, 9])
    assert relate(candidate, baseline) is not None


@pytest.mark.parametrize(
    ("candidate", "baseline", "evidence"),
    [
        (draw(8, 4).t(), draw(8, 4), "equal to the baseline's transposed"),
        (draw(8, 4, 3, 5).permute(2, 3, 1, 0), draw(8, 4, 3, 5), "in the order (2, 3, 1, 0)"),
        (draw(8, 4, 1, 1).flatten(1), draw(8, 4, 1, 1), "the same numbers in the same order"),
        (draw(8, 4, 3, 3), draw(8, 16, 3, 3, seed=1), "4 times as many groups"),
        (draw(8, 4)[:5], draw(8, 4), "the candidate's numbers are the first rows"),
        (draw(4, 4, 5, 5)[:, :, 1:4, 1:4], draw(4, 4, 5, 5), "the middle kernel rows and kernel columns"),
    ],
)
def test_other_shapes_are_explained(candidate: Any, baseline: Any, evidence: str) -> None:
    relation = found(candidate, baseline)
    assert relation.kind == "shape"
    assert evidence in " ".join(relation.evidence)


UGLY = st.sampled_from(
    [0.0, 1.0, -1.0, 0.1, 1e-310, 1e-40, 6e-8, 3e38, -1e300, math.nan, math.inf, -math.inf]
)


@st.composite
def ugly(draws: Any, shape: tuple[int, ...]) -> torch.Tensor:
    values = draws(st.lists(UGLY, min_size=math.prod(shape), max_size=math.prod(shape)))
    dtype = draws(st.sampled_from(DTYPES))
    safe = (
        values
        if dtype.is_floating_point or dtype.is_complex
        else [int(abs(x)) % 200 if abs(x) < 1e3 else 7 for x in values]
    )
    tensor = torch.tensor(safe, dtype=torch.float64).to(dtype).reshape(shape)
    return tensor.movedim(0, -1).contiguous().movedim(-1, 0) if len(shape) > 1 else tensor


@SETTINGS
@given(
    data=st.data(),
    shape=st.sampled_from([(), (0,), (1,), (2,), (3, 0), (2, 2), (12,), (2, 3, 2), (2, 2, 2, 2)]),
)
def test_no_tensor_is_too_ugly(data: Any, shape: tuple[int, ...]) -> None:
    candidate, baseline, other = (data.draw(ugly(shape)) for _ in range(3))
    before = [tensor.clone() for tensor in (candidate, baseline)]
    relation = relate(candidate, baseline, {"other": other})
    assert relation is None or relation.kind in KINDS
    for tensor, kept in zip((candidate, baseline), before, strict=True):
        assert relate(tensor, kept) is None
    assert found(candidate, torch.zeros(5, 7)).kind == "shape"


@SETTINGS
@given(seed=st.integers(0, 10_000), n=st.integers(3, 40), width=st.integers(1, 6), axis=st.integers(0, 1))
def test_any_planted_permutation_is_recovered(seed: int, n: int, width: int, axis: int) -> None:
    baseline = draw(n, width, seed=seed).movedim(0, axis)
    order = shuffled(n, seed)
    if order.equal(torch.arange(n)):
        order = order.flip(0)
    assert found(baseline.index_select(axis, order), baseline).kind in {"permuted", "transposed"}


@SETTINGS
@given(seed=st.integers(0, 10_000), factor=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]))
def test_any_planted_factor_is_recovered(seed: int, factor: float, sign: int) -> None:
    baseline = draw(40, seed=seed)
    candidate = baseline * (sign * factor)
    relation = relate(candidate, baseline)
    if abs(sign * factor - 1) > 1e-5:
        assert relation is not None
        assert relation.kind == "scaled"
        if relation.evidence[0].startswith("factor"):
            assert float(relation.evidence[0].split()[1]) == pytest.approx(sign * factor, rel=1e-6)


@SETTINGS
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(FORMATS)))
def test_any_planted_rounding_is_recovered(seed: int, name: str) -> None:
    baseline = draw(40, seed=seed, dtype=torch.float64)
    assert found(FORMATS[name](baseline), baseline).kind == "rounded"


def test_a_row_that_is_wrong_besides_is_told_among_rounded_ones() -> None:
    baseline = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    candidate = baseline.clone()
    candidate[3] *= 1.05
    relation = relate(candidate.half().float(), baseline)
    assert relation is not None
    assert relation.kind == "partial"
    assert relation.summary == "is rounded to float16 and differs in 1 of 8 rows only (3)"
