from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from PIL import Image

from reports import depth, plot
from tests import samples
from verifier.records import Budget, Status

if TYPE_CHECKING:
    from verifier.records import PairResult
    from verifier.storage.saving import Verification


def drawn(*rows: PairResult) -> depth.DepthChart:
    cell = msgspec.structs.replace(samples.verification().cells[0], layers=rows)
    found = depth.chart(msgspec.structs.replace(samples.verification(), cells=(cell,)))
    assert found is not None
    return found


def heights(of: depth.DepthChart) -> list[int]:
    return [y for _, y in of.series[0].total]


def test_larger_errors_lie_higher_and_equal_factors_equally_far_apart() -> None:
    one, ten, hundred, thousand = heights(drawn(*(samples.pair(k, total=10.0**-k) for k in (3, 2, 1, 0))))
    assert one > ten > hundred > thousand
    assert abs((one - ten) - (hundred - thousand)) <= 1


def test_nothing_is_at_the_foot_and_what_is_no_number_at_the_top() -> None:
    exact, small, broken = heights(
        drawn(samples.pair(0), samples.pair(1, total=1e-12), samples.pair(2, total=math.nan))
    )
    assert (exact, broken) == (depth._ZERO, depth._BROKEN)
    assert broken < small < exact


def test_what_was_not_measured_leaves_no_point() -> None:
    lonely = msgspec.structs.replace(samples.pair(1), total=None, candidate=None, status=Status.UNMATCHED)
    run = drawn(samples.pair(0, total=1e-3), lonely, samples.pair(2, total=1e-3)).series[0].total
    assert [x for x, _ in run] == [0, 2]


def test_a_path_leads_through_every_point() -> None:
    series = drawn(*(samples.pair(k, total=10.0**-k) for k in (3, 1, 6, 2, 0))).series[0]
    run = series.total
    start, steps = series.total_path.removeprefix("M").split("l")
    x, y = map(int, start.split())
    walked = [(x, y)]
    numbers = [int(each) for each in re.findall(r"-?\d+", steps)]
    for dx, dy in zip(numbers[::2], numbers[1::2], strict=True):
        x, y = x + dx, y + dy
        walked.append((x, y))
    assert walked == list(run)


def test_the_budget_is_an_area_of_steps_as_wide_as_the_sites() -> None:
    budgets = (Budget(rule="x", total=10.0**k, intrinsic=1.0) for k in (0, 0, -3))
    series = drawn(*(samples.pair(k, total=1.0, budget=each) for k, each in enumerate(budgets))).series[0]
    high, _, low = (y for _, y in series.budget)
    assert series.budget_path == f"M-0.5 1000V{high}H1.5V{low}H2.5V1000z"


def test_culprits_and_amplifiers_are_marked_on_the_line() -> None:
    found = depth.chart(samples.three_culprits())
    assert found is not None
    [series] = found.series
    assert [x for x, _ in series.culprits] == [1, 4, 5]
    assert [x for x, _ in series.amplifies] == [3]
    heights, missing = dict(series.total), dict(series.culprits)[4]
    assert 4 not in heights  # it has no partner
    assert missing == heights[5]
    assert [(flag.number, flag.position) for flag in found.flags] == [("1", 1), ("2", 4), ("3", 5)]


def test_flags_that_would_lie_on_one_another_are_told_as_one() -> None:
    deep = samples.deep(1000, ("cpu/float64",))
    near = tuple(
        msgspec.structs.replace(deep.cells[0].layers[x], cause=samples.cause(f"code-{code}"))
        for x, code in ((500, 1), (501, 2), (503, 3), (700, 4), (800, 2), (801, 2))
    )
    found = depth.chart(msgspec.structs.replace(deep, culprits=near))
    assert found is not None
    assert [flag.number for flag in found.flags] == ["1–3", "4", "2"]  # noqa: RUF001 - from, to


def test_one_cause_has_one_flag() -> None:
    found = depth.chart(samples.one_cause())
    assert found is not None
    assert [(flag.number, flag.position) for flag in found.flags] == [("1", 0)]
    assert len(found.series[0].culprits) == 52


def test_the_cell_that_decides_is_in_focus(diverged: Verification) -> None:
    found = depth.chart(diverged)
    assert found is not None
    assert [(one.name, one.focus) for one in found.series] == [("cpu/float64", True), ("cpu/float32", False)]


def test_the_outermost_modules_are_named_where_they_begin() -> None:
    found = depth.chart(samples.deep(3700))
    assert found is not None
    assert [(tick.label, tick.position) for tick in found.horizontal] == [
        ("layer1", 0),
        ("layer2", 1200),
        ("layer3", 2400),
    ]


def test_a_cell_in_which_nothing_has_a_partner_is_drawn_too() -> None:
    lonely = msgspec.structs.replace(samples.pair(1), total=None, baseline=None, status=Status.UNMATCHED)
    found = drawn(lonely)
    assert (found.horizontal, found.series[0].total_path) == ((), "")


def test_the_plot_is_told_in_a_sentence(diverged: Verification) -> None:
    found = depth.chart(diverged)
    assert found is not None
    assert found.sentence == "Total error of 8 sites in cpu/float64: at most 0.0007, at fc; 1 culprit"


def test_what_a_policy_accepts_is_no_culprit_in_the_plot() -> None:
    found = depth.chart(samples.accepted())
    assert found is not None
    assert found.sentence.endswith("; 1 site beyond rounding")
    assert "accepted by policy, numbered above" in [key.word for key in found.keys]


def test_the_legend_has_the_signs_that_are_there(matching: Verification, diverged: Verification) -> None:
    def legend(verification: Verification) -> list[str]:
        found = depth.chart(verification)
        assert found is not None
        return [key.word for key in found.keys]

    assert legend(matching) == ["total error", "allowed in total"]
    assert legend(diverged) == [
        "total error",
        "intrinsic error",
        "allowed in total",
        "culprit, numbered above",
    ]
    assert legend(samples.three_culprits())[-1] == "amplifies what came in"
    # Of 52 sites of one cause the first alone has its number.
    assert "culprit, its cause numbered above or to the left" in legend(samples.one_cause())


def test_without_rows_there_is_no_plot(inconclusive: Verification) -> None:
    assert depth.chart(inconclusive) is None
    assert plot.png(inconclusive) is None


def test_the_picture_shows_the_step_where_the_fault_is() -> None:
    verification = samples.deep(600, ("cpu/float64",))
    content = plot.png(verification)
    assert content is not None
    assert content == plot.png(verification)
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (1000, 380)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    # The line is the only thing of a saturated blue: where it lies, column by column.
    blue = (pixels[..., 2] - pixels[..., 0] > 100) & (pixels[..., 0] < 60)
    blue[340:] = False  # the legend
    columns = [np.flatnonzero(column).mean() for column in blue[:, 100:900].T if column.any()]
    half = len(columns) // 2
    assert np.mean(columns[: half - 60]) > np.mean(columns[half + 60 :]) + 100
    red = (pixels[..., 0] - pixels[..., 2] > 100) & (pixels[..., 1] < 80)
    assert red[:330].sum() > 40


def test_a_picture_of_many_sites_is_small() -> None:
    content = plot.png(samples.deep(3700))
    assert content is not None
    assert len(content) < 200_000


def test_names_of_modules_do_not_lie_on_one_another() -> None:
    """On the narrowest page, where some 46 characters stand side by side."""
    names = (
        "backbone",
        "getitem_118",
        "softmax",
        "getitem_926",
        "nms_101",
        "a_module_of_a_very_long_name",
        "fc",
    )
    one = samples.pair(0)
    rows = [
        msgspec.structs.replace(one, index=k, baseline=f"{names[k // 20]}.{k}")
        for k in range(20 * len(names))
    ]
    found = drawn(*rows).horizontal
    assert len(found) > 2
    ends = [tick.position / len(rows) * 46 + len(tick.label) for tick in found]
    starts = [tick.position / len(rows) * 46 for tick in found]
    assert all(start > end for start, end in zip(starts[1:], ends, strict=False))
    assert ends[-1] <= 46
