"""Measurements of a run that will be run again into the same memory are kept elsewhere."""

from __future__ import annotations

import pytest
import torch

from verifier.metrics import Measurement, collect, keep, kernel_torch, measure
from verifier.metrics.kernel_torch import Rows


def draw(seed: int) -> torch.Tensor:
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offset", [0, 40])
def test_what_is_kept_outlives_what_it_was_made_from_and_counts_samples_anew(offset: int) -> None:
    a, b = draw(0), draw(1)
    queued = [
        Measurement(None, kernel_torch.reduce(a, b, 0)),
        Measurement(None, kernel_torch.reduce(b, b, 0)),
    ]
    expected = collect([measure(a, b, offset), measure(b, b, offset)])
    kept = keep(queued, offset)
    for each in queued:
        assert isinstance(each.rows, Rows)
        each.rows.values.fill_(float("nan"))  # as the next run would overwrite it
    found = collect(kept)
    assert [each.max_abs_index for each in found] == [each.max_abs_index for each in expected]
    assert [each.sum_dd for each in found] == pytest.approx([each.sum_dd for each in expected])
    assert found[1].identical


def test_numbers_that_are_there_already_stay_what_they_are() -> None:
    measured = measure(draw(0), draw(1), 3)
    assert keep([measured], 9) == [measured]


def test_partials_of_a_fused_kernel_are_kept_as_well(interpret: object) -> None:
    assert callable(interpret)
    a, b = draw(0), draw(1)
    partials = interpret(a, b, 0, 3)
    kept = keep([Measurement(None, partials)], 20)
    partials.values.zero_()
    (found,), (expected,) = collect(kept), collect([measure(a, b, 20)])
    assert found.max_abs_index == expected.max_abs_index
    assert found.sum_dd == pytest.approx(expected.sum_dd)
