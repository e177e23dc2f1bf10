from __future__ import annotations

from verifier.dumps.parameters import Parameters


def test_counters_of_batches_are_known_and_need_no_partner() -> None:
    found = Parameters((), ("bn1.num_batches_tracked", "batch_stats/norm/mean"))
    assert found.names == frozenset(found.others)
    assert found.lost == ("batch_stats/norm/mean",)
