from __future__ import annotations

from reports.failure import LINES, failure
from tests import samples


def test_one_cause_is_told_once_with_its_remedy() -> None:
    headline, cause, fix = failure(samples.caused(samples.cause(), each=52))
    assert headline.startswith("diverged: all 52 batch_norm sites are wrong")
    assert cause == (
        "all 52 batch_norm sites, first layer0.0.bn: eps is 0.001, the baseline's 1e-05 (confirmed, batchnorm-eps)"
    )
    assert fix == "  fix: set eps to 1e-05"


def test_more_causes_than_fit_are_counted_and_the_path_stays() -> None:
    causes = [samples.cause(f"code-{k}", f"it is {k}") for k in range(5)]
    found = failure(samples.caused(*causes), "report.html", "look again")
    assert len(found) == LINES
    assert found[-3:] == ["and 2 more causes", "look again", "report: report.html"]
