"""How far apart two tensors are: one pass reduces them to moments, numbers are derived from those.

    measurement = measure(baseline, candidate)      # reads both where they lie; on CUDA nothing waits
    (moments,) = collect([measurement])             # one transfer for all measurements of a device
    comparison = compare(moments)                   # a frozen record of numbers

Moments merge: those of batches, chunks or ranks give those of the whole.
"""

from verifier.metrics.measure import Measurement, collect, keep, measure, warm_up
from verifier.metrics.moments import Moments
from verifier.metrics.table import METRICS, compare

__all__ = ["METRICS", "Measurement", "Moments", "collect", "compare", "keep", "measure", "warm_up"]
