from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.cuda import needs_cuda
from verifier.metrics.agreement import agreement, kl_divergence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from verifier.records import OutputAgreement

INF, NAN = math.inf, math.nan


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def agree(baseline: Any, candidate: Any) -> OutputAgreement:
    """Of one output each, given as tensors or as nested lists of float64 numbers."""
    a, b = (
        each if isinstance(each, torch.Tensor) else torch.tensor(each, dtype=torch.float64)
        for each in (baseline, candidate)
    )
    found = agreement([a], [b])
    assert found is not None
    return found


def exact_kl(a: torch.Tensor, b: torch.Tensor) -> list[float]:
    """From the definition, with 80 digits."""
    with mpmath.workdps(80):
        return [
            max(
                0.0,  # 80 digits round, too
                float(
                    mpmath.fsum(
                        x / mpmath.fsum(p) * mpmath.log((x / mpmath.fsum(p)) / (y / mpmath.fsum(q)))
                        for x, y in zip(p, q, strict=True)
                    )
                ),
            )
            for p, q in (
                ([mpmath.exp(v) for v in one], [mpmath.exp(v) for v in other])
                for one, other in zip(a.tolist(), b.tolist(), strict=True)
            )
        ]


def highest(row: list[float], count: int) -> set[int]:
    """Python's sort is stable: the lower of two equal classes comes first."""
    return set(sorted(range(len(row)), key=lambda k: -row[k])[:count])


# Logits that tie, saturate and hide: few distinct values make ties likely.
UGLY = st.sampled_from([0.0, -0.0, 1.0, 1.0, 2.0, -3.0, 1e-300, 5e-324, 1e30, -1e30, INF, -INF, NAN])
PLAIN = st.floats(-30, 30)


@st.composite
def logits(draw: Any, elements: st.SearchStrategy[float]) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (draw(st.integers(1, 4)), draw(st.integers(2, 9)))
    a: NDArray[np.float64] = draw(hnp.arrays(np.float64, shape, elements=elements))
    b: NDArray[np.float64] = draw(st.just(a.copy()) | hnp.arrays(np.float64, shape, elements=elements))
    return torch.from_numpy(a), torch.from_numpy(b)


def test_nothing_of_one_shape_is_no_agreement() -> None:
    assert agreement([], []) is None
    assert agreement([torch.zeros(2, 3)], [torch.zeros(2, 4)]) is None


@pytest.mark.parametrize(
    "outputs", [torch.zeros(2, 3, 4), torch.zeros(5), torch.zeros(2, 1), torch.zeros(2, 9, dtype=torch.int64)]
)
def test_what_is_no_class_scores_has_no_task(outputs: torch.Tensor) -> None:
    found = agree(outputs, outputs)
    assert (found.mse, found.bit_exact) == (0, True)
    assert {
        found.pearson_probabilities,
        found.top1_agreement,
        found.top5_agreement,
        found.kl_mean,
        found.kl_max,
        found.smallest_margin,
        found.largest_logit_error,
        found.top1_safe,
        found.samples,
    } == {None}


def test_the_first_class_scores_are_read_and_all_outputs_compared() -> None:
    features, scores = draw(3, 4, 5), draw(3, 10, seed=1)
    found = agreement([features, scores, scores], [features + 1, scores, scores + 1])
    assert found is not None
    assert (found.top1_agreement, found.largest_logit_error, found.samples) == (1, 0, 3)
    assert found.mse > 0.5
    assert found.bit_exact is False


@given(logits(UGLY | PLAIN))
def test_the_highest_classes_are_those_a_stable_sort_finds(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    rows = list(zip(*(side.tolist() for side in pair), strict=True))

    def share(count: int) -> float:
        same = [
            not any(map(math.isnan, (*one, *other))) and highest(one, count) == highest(other, count)
            for one, other in rows
        ]
        return sum(same) / len(rows)

    found = agree(*pair)
    assert found.top1_agreement == pytest.approx(share(1), abs=1e-15)
    if pair[0].shape[1] < 6:
        assert found.top5_agreement is None
    else:
        assert found.top5_agreement == pytest.approx(share(5), abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_order_among_the_five_highest_does_not_matter(dtype: torch.dtype) -> None:
    a = torch.tensor([[9, 8, 7, 6, 5, 1, 0], [9, 8, 7, 6, 5, 1, 0]], dtype=dtype)
    b = torch.tensor([[5, 6, 7, 8, 9, 1, 0], [9, 8, 7, 6, 1, 5, 0]], dtype=dtype)
    found = agree(a, b)
    assert (found.top1_agreement, found.top5_agreement) == (0.5, 0.5)


def test_a_sample_with_nan_agrees_in_nothing_even_with_itself() -> None:
    scores = draw(4, 7)
    scores[1, 3] = NAN
    found = agree(scores, scores)
    assert (found.top1_agreement, found.top5_agreement) == (0.75, 0.75)
    assert found.top1_safe is False
    assert found.bit_exact is True
    for value in (found.kl_mean, found.kl_max, found.smallest_margin, found.largest_logit_error):
        assert value is not None
        assert math.isnan(value)


@given(logits(PLAIN))
def test_the_divergence_is_scipys(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    p, q = (scipy.special.softmax(side.numpy(), axis=1) for side in pair)
    expected = scipy.special.rel_entr(p, q).sum(axis=1)
    assert expected == pytest.approx(scipy.stats.entropy(p, q, axis=1), abs=1e-12)
    found = agree(*pair)
    assert found.kl_mean == pytest.approx(expected.mean(), rel=1e-9, abs=1e-13)
    assert found.kl_max == pytest.approx(expected.max(), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("scale", [10.0, 1.0, 0.3, 1e-1, 3e-3, 1e-4, 1e-7, 1e-10, 1e-14])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 10.0])
def test_a_small_divergence_keeps_its_digits(scale: float, spread: float) -> None:
    a = spread * draw(6, 50, dtype=torch.float64)
    b = a + scale * draw(6, 50, seed=1, dtype=torch.float64)
    # What b - a has lost to the rounding of the logits themselves, no formula can give back.
    assert kl_divergence(a, b).tolist() == pytest.approx(exact_kl(a, b), rel=1e-11, abs=0)


@given(logits(PLAIN), st.floats(-1000, 1000), st.sampled_from([1.0, 1e-3, 1e-9]))
def test_a_divergence_is_right_whatever_shifts_all_logits(
    pair: tuple[torch.Tensor, torch.Tensor], shift: float, scale: float
) -> None:
    a = pair[0].float().double()
    b = (a + scale * pair[1] + shift).float().double()
    noise = 1e-15 * (1 + abs(shift))
    for found, expected in zip(kl_divergence(a, b).tolist(), exact_kl(a, b), strict=True):
        assert math.sqrt(found) == pytest.approx(math.sqrt(expected), rel=1e-9, abs=noise)


@given(logits(UGLY | PLAIN))
def test_a_divergence_is_never_negative_and_nan_only_where_there_are_no_probabilities(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    for one, other, found in zip(*pair, kl_divergence(*pair).tolist(), strict=True):
        defined = all(
            not side.isnan().any() and not side.eq(INF).any() and not side.eq(-INF).all()
            for side in (one, other)
        )
        assert defined != math.isnan(found)
        assert not found < 0


@given(logits(st.sampled_from([0.0, 1.0, -2.0, 700.0, -INF])))
def test_impossible_classes_diverge_as_scipy_has_it(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    with np.errstate(invalid="ignore"):
        p, q = (scipy.special.softmax(side.numpy(), axis=1) for side in pair)
    expected = scipy.special.rel_entr(p, q).sum(axis=1)
    for one, found, wanted in zip(zip(*pair, strict=True), kl_divergence(*pair), expected, strict=True):
        lost = any(bool((side < 600).logical_and(side > -INF).any() and (side > 600).any()) for side in one)
        if not lost:  # where exp(-700) counts, numpy's probabilities of 0 stand for others
            assert float(found) == pytest.approx(float(wanted), rel=1e-12, abs=1e-15, nan_ok=True)


def test_a_class_that_only_the_candidate_rules_out_is_infinitely_far() -> None:
    assert agree([[0.0, 1.0, 2.0]], [[-INF, 1.0, 2.0]]).kl_max == INF
    assert agree([[-INF, 1.0, 2.0]], [[0.0, 1.0, 2.0]]).kl_max == pytest.approx(
        scipy.stats.entropy(*(scipy.special.softmax(x) for x in ([-INF, 1, 2], [0, 1, 2])))
    )
    assert agree([[-INF, 1.0, 2.0]], [[-INF, 1.0, 2.0]]).kl_max == 0


@pytest.mark.parametrize(
    ("baseline", "candidate", "margin", "error", "is_safe"),
    [
        ([[1.0, 3.0, 2.0], [5.0, 1.0, 0.0]], [[1.0, 3.25, 2.0], [5.0, 1.0, 0.0]], 1.0, 0.25, True),
        ([[1.0, 2.0]], [[1.5, 2.0]], 1.0, 0.5, False),  # half the margin could make a tie
        ([[2.0, 2.0, 0.0]], [[2.0, 2.0, 0.0]], 0.0, 0.0, False),
        ([[INF, 1.0]], [[INF, 2.0]], INF, 1.0, True),
        ([[INF, INF]], [[INF, INF]], 0.0, 0.0, False),
        ([[INF, 1.0]], [[3.0, 1.0]], INF, INF, False),
        ([[3.0, 1.0]], [[INF, 1.0]], 2.0, INF, False),
        ([[3.0, -INF]], [[2.0, -INF]], INF, 1.0, True),
        ([[3.0, -INF]], [[2.0, 0.0]], INF, INF, False),
        ([[-INF, -INF]], [[-INF, -INF]], 0.0, 0.0, False),
        ([[INF, 1.0]], [[-INF, 1.0]], INF, INF, False),
        ([[3.0, 1.0]], [[3.0, NAN]], 2.0, NAN, False),
        ([[3.0, NAN]], [[3.0, NAN]], NAN, NAN, False),
        ([[3.0, 2.0, NAN]], [[3.0, 2.0, 1.0]], NAN, NAN, False),
        ([[3.0, 2.0], [NAN, NAN]], [[3.0, 2.0], [1.0, 0.0]], NAN, NAN, False),
        ([[1e308, -1e308]], [[1e308, -1e308]], INF, 0.0, True),
    ],
)
def test_margins_and_errors_of_any_logits_are_defined(
    baseline: list[list[float]], candidate: list[list[float]], margin: float, error: float, is_safe: bool
) -> None:
    found = agree(baseline, candidate)
    assert [found.smallest_margin, found.largest_logit_error] == pytest.approx([margin, error], nan_ok=True)
    assert found.top1_safe is is_safe


@given(logits(UGLY | PLAIN | st.floats()))
def test_what_is_safe_has_flipped_nowhere(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    found = agree(*pair)
    assert isinstance(found.top1_safe, bool)
    if found.top1_safe:
        assert found.top1_agreement == 1


@given(logits(PLAIN), st.floats(0, 1), st.randoms(use_true_random=False))
def test_no_error_below_half_the_margin_flips_a_first_choice(
    pair: tuple[torch.Tensor, torch.Tensor], part: float, random: Any
) -> None:
    a = pair[0]
    margin = agree(a, a).smallest_margin
    assert margin is not None
    signs = torch.tensor([[random.choice([-1, 1]) for _ in row] for row in a.tolist()])
    found = agree(a, a + signs * (part * margin / 2))
    if found.top1_safe:
        assert found.top1_agreement == 1
    elif margin > 1e-9:
        assert part > 0.999


def test_bits_are_equal_only_with_nan_payloads_and_signs_of_zero() -> None:
    numbers = torch.tensor([[0.0, 1.0, NAN]])
    negative = torch.tensor([[-0.0, 1.0, NAN]])
    other = numbers.view(torch.int32).clone()
    other[0, 2] += 1  # another NaN
    assert agree(numbers, numbers.clone()).bit_exact is True
    assert agree(numbers, negative).bit_exact is False
    assert agree(numbers, other.view(torch.float32)).bit_exact is False
    assert agree(numbers, numbers.double()).bit_exact is None


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bool,
        torch.uint8,
        torch.int64,
        torch.bfloat16,
        torch.complex64,
        torch.complex128,
        torch.float8_e5m2,
    ],
)
def test_any_dtype_and_any_strides_are_compared_bit_for_bit(dtype: torch.dtype) -> None:
    a = (torch.arange(24).reshape(2, 3, 4) % 2).to(dtype)
    b = a.clone().transpose(0, 1).contiguous().transpose(0, 1)
    assert agree(a, b).bit_exact is True
    b[1, 2, 3] = 0
    assert agree(a, b).bit_exact is False


def test_conjugates_are_compared_by_value() -> None:
    z = torch.view_as_complex(draw(3, 2))
    assert agree(z.conj(), z.conj().resolve_conj()).bit_exact is True
    assert agree(z.conj(), z).bit_exact is False


def test_of_no_samples_nothing_is_known() -> None:
    found = agree(torch.zeros(0, 8), torch.zeros(0, 8))
    assert found.samples == 0
    assert found.top1_safe is False
    for value in (found.top1_agreement, found.top5_agreement, found.kl_max, found.smallest_margin):
        assert value is not None
        assert math.isnan(value)


@needs_cuda
def test_a_cuda_device_says_the_same() -> None:
    a = draw(16, 100)
    b = a + 1e-3 * draw(16, 100, seed=1)
    here, there, apart = agree(a, b), agree(a.cuda(), b.cuda()), agree(a.cuda(), b)
    assert there == apart
    assert there.kl_max == pytest.approx(here.kl_max, rel=1e-9)
    assert (there.smallest_margin, there.top5_agreement) == (here.smallest_margin, here.top5_agreement)


def test_boxes_with_labels_of_their_own_are_no_class_scores() -> None:
    boxes, labels, logits = draw(7, 4), torch.arange(7), draw(2, 5)
    found = agreement([boxes, labels, logits], [boxes, labels, logits + 0.1], samples=2)
    assert found is not None
    assert found.samples == 2
    for count in (7, 0):
        some = [boxes[:count], labels[:count]]
        few = agreement(some, some, samples=2)
        assert few is not None
        assert (few.top1_agreement, few.pearson_probabilities, few.samples) == (None, None, None)
    a_row_each = agreement([boxes, labels], [boxes, labels], samples=7)
    assert a_row_each is not None
    assert a_row_each.samples == 7
    flattened = agreement([boxes], [boxes], samples=1)
    assert flattened is not None
    assert flattened.samples == 7


def test_class_probabilities_that_are_constant_on_both_sides_have_no_correlation() -> None:
    level, other = torch.zeros(2, 3), draw(2, 3)
    assert agree(level, level).pearson_probabilities is None
    assert math.isnan(agree(level, other).pearson_probabilities or 0.0)
    assert math.isnan(agree(other, level).pearson_probabilities or 0.0)
    hidden = torch.full((2, 3), NAN)
    assert agree(hidden, hidden).pearson_probabilities is None
    assert math.isnan(agree(other, hidden).pearson_probabilities or 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_read_stays_as_it_is(dtype: torch.dtype) -> None:
    a = torch.tensor([[1.5, math.nan, -3.0], [0.25, 2.0, math.inf]], dtype=dtype)
    b = a + 0.5
    kept = a.clone(), b.clone()
    agreement([a], [b], samples=2)
    assert torch.equal(a.nan_to_num(7.0), kept[0].nan_to_num(7.0))
    assert torch.equal(b.nan_to_num(7.0), kept[1].nan_to_num(7.0))
