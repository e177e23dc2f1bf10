"""Samples of verifications for the tests of what is made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import samples
from verifier.records import OutputAgreement

if TYPE_CHECKING:
    from collections.abc import Callable

    from verifier.records import Comparison, PairResult
    from verifier.storage.saving import Verification


@pytest.fixture(params=list(samples.SAMPLES))
def sample(request: pytest.FixtureRequest) -> Verification:
    """Each kind of verification in turn."""
    return samples.SAMPLES[request.param]()


@pytest.fixture
def make_verification() -> Callable[..., Verification]:
    """Builds a matching verification, with other fields if given."""
    return samples.verification


@pytest.fixture
def make_pair() -> Callable[..., PairResult]:
    """Builds a pair by its index and total error, with other fields if given."""
    return samples.pair


@pytest.fixture
def make_comparison() -> Callable[..., Comparison]:
    """Builds a comparison by its relative error, with other figures if given."""
    return samples.comparison


@pytest.fixture
def matching() -> Verification:
    return samples.verification()


@pytest.fixture(name="diverged")
def _diverged() -> Verification:
    return samples.diverged()


@pytest.fixture(name="inconclusive")
def _inconclusive() -> Verification:
    return samples.inconclusive()


@pytest.fixture(name="hostile")
def _hostile() -> Verification:
    return samples.hostile()


@pytest.fixture
def scores() -> OutputAgreement:
    """An output of eight samples' class scores, with all that is measured of them."""
    return OutputAgreement(
        mse=3e-13,
        pearson_probabilities=1.0,
        top1_agreement=1.0,
        top5_agreement=0.875,
        kl_mean=4e-10,
        kl_max=1.2e-9,
        smallest_margin=0.31,
        largest_logit_error=4.1e-6,
        top1_safe=True,
        bit_exact=False,
        samples=8,
    )
