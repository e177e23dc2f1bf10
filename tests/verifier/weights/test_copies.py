"""Which tensors come of which."""

from __future__ import annotations

import pytest
import torch

from verifier.weights.copies import related


@pytest.mark.parametrize("shape", [(256, 256, 3, 3), (256, 256, 3), (768, 768, 2)])
def test_an_edit_of_one_tap_of_a_large_tensor_is_no_fresh_draw(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    baseline = torch.randn(shape, generator=generator)
    candidate = baseline.clone()
    candidate.flatten(2)[..., 0] = 0.0
    assert related(baseline, candidate)
    assert not related(baseline, torch.randn(shape, generator=generator))
    both = torch.stack([baseline.double().flatten(), candidate.double().flatten()])
    least = float(torch.corrcoef(both)[0, 1])
    assert related(baseline, candidate) == (least > 0.5)


def test_what_is_not_finite_is_related_to_nothing() -> None:
    nan = torch.tensor([1.0, float("nan"), 3.0])
    assert not related(nan, nan.clone())
