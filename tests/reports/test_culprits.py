from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from PIL import Image

from reports import culprits, painting, view
from tests import samples
from verifier.records import Histogram, Plane, Status, WeightsInfo

if TYPE_CHECKING:
    from verifier.storage.saving import Verification


def shown(verification: Verification) -> culprits.Culprit:
    [first, *_] = culprits.culprits(verification)
    return first


def test_a_culprit_is_told_with_cause_remedy_evidence_and_figures() -> None:
    found = shown(samples.diverged())
    assert (found.name, found.op, found.anchor) == ("bn1 (candidate: stem.bn)", "batch_norm", "culprit-1")
    assert (found.cause, found.code, found.sure) == (
        "eps is 0.001 instead of 1e-05",
        "batchnorm-eps",
        "confirmed",
    )
    assert (found.remedy, found.evidence) == ("set eps to 1e-05", ("error falls to 0",))
    assert dict(found.figures)["intrinsic: relative error on identical inputs"] == "0.0005"
    assert dict(found.figures)["allowed"] == "1e-12, rule semantics/float64"


def test_settings_that_differ_are_marked_and_mapped_weights_do_not() -> None:
    mapped = WeightsInfo(mode="transfer", parameter_map={"stem.bn.weight": "bn1.weight"})
    verification = msgspec.structs.replace(samples.diverged(), weights=mapped)
    lines = {line.name: line for line in shown(verification).settings}
    assert {name for name, line in lines.items() if line.differs} == {"eps"}
    assert (lines["eps"].baseline, lines["eps"].candidate) == ("1e-05", "0.001")
    unmapped = {line.name for line in shown(samples.diverged()).settings if line.differs}
    assert unmapped == {"eps", "weight"}


def test_results_of_before_settings_were_recorded_tell_what_differs() -> None:
    old = samples.diverged()
    cell = msgspec.structs.replace(old.cells[0], exhibits=())
    found = shown(msgspec.structs.replace(old, cells=(cell,)))
    assert found.settings == (culprits.SettingRow("eps", "1e-05", "0.001", differs=True),)
    assert (found.pictures, found.channels, found.histogram) == ((), None, None)


def test_pictures_are_told_with_place_and_scale() -> None:
    found = shown(samples.diverged())
    assert found.pictured == "On the baseline's inputs in cpu/float64: channel 40 of sample 1, the worst"
    assert [each.caption for each in found.pictures] == ["baseline", "candidate", "candidate minus baseline"]
    assert found.channels is not None
    assert found.channels.alt == "Error of each channel, up to 1, the largest at channel 40"
    assert found.channels.note == "up to 1, a bar for 16 channels"
    assert found.histogram is not None
    assert found.histogram.note == "log counts up to 300, 7 equal, 2 not finite"


def test_where_a_culprit_has_no_partner_the_pictures_name_the_pair_behind_it() -> None:
    second = culprits.culprits(samples.three_culprits())[1]
    assert " at layer1.0.relu: " in second.pictured


def extra(**fields: Any) -> Verification:
    """A culprit that the candidate alone has, told at the row behind it; that row was run again, too."""
    bad = samples.diverged()
    behind = msgspec.structs.replace(
        bad.culprits[0], status=Status.AMPLIFIES, replayed=samples.comparison(0.0), cause=None
    )
    blamed = msgspec.structs.replace(
        behind, candidate="mul", status=Status.UNMATCHED, cause=samples.cause("residual-scaled"), **fields
    )
    settings = {"operator": "mul", "shape": "8 x 64", "other": "0.5"}
    exhibit = samples.exhibit(
        baseline_settings={"operator": "add", "shape": "8 x 64"}, candidate_settings=settings
    )
    cell = bad.cells[0]
    rows = (cell.layers[0], behind, *cell.layers[2:])
    cell = msgspec.structs.replace(
        cell, layers=rows, culprits=(blamed,), first_divergence=blamed, exhibits=(exhibit,)
    )
    return msgspec.structs.replace(bad, cells=(cell,), culprits=(blamed,), first_divergence=blamed)


def test_what_is_extra_is_not_compared_with_the_operator_behind_it() -> None:
    found = shown(extra())
    assert [(line.name, line.baseline, line.candidate, line.differs) for line in found.settings] == [
        ("operator", "-", "mul", True),
        ("shape", "-", "8 x 64", True),
        ("other", "-", "0.5", True),
    ]


def test_the_figures_of_what_is_extra_are_those_behind_it() -> None:
    figures = dict(shown(extra()).figures)
    assert figures["intrinsic: relative error on identical inputs, behind it"] == "0.0005"
    assert "total: relative error in the whole model, behind it" in figures
    assert "run again on the baseline's inputs" not in figures  # what was, was the site behind it


def test_what_stands_in_the_place_of_another_is_compared_with_it() -> None:
    found = extra()
    cell = found.cells[0]
    missing = msgspec.structs.replace(cell.layers[1], candidate=None, status=Status.UNMATCHED)
    cell = msgspec.structs.replace(cell, layers=(cell.layers[0], missing, *cell.layers[2:]))
    [operator, *_] = shown(msgspec.structs.replace(found, cells=(cell,))).settings
    assert (operator.baseline, operator.candidate, operator.differs) == ("add", "mul", True)


def test_a_channel_that_is_not_finite_has_a_full_bar() -> None:
    third = culprits.culprits(samples.three_culprits())[2]
    assert third.channels is not None
    assert third.channels.path.count("v-72.0") == 2


def test_only_the_first_culprits_are_shown_in_full() -> None:
    many = samples.caused(*(samples.cause(f"code-{k}") for k in range(40)))
    assert len(culprits.culprits(many)) == culprits.SHOWN
    assert len(view.page(many).further_culprits) == 40 - culprits.SHOWN


def test_sites_of_one_cause_are_one_card_that_lists_them() -> None:
    [card] = culprits.culprits(samples.one_cause())
    assert (card.name, card.cause) == ("all 52 batch_norm sites", "eps is 0.001, the baseline's 1e-05")
    assert card.op == "layer0.0.bn, layer0.1.bn, layer0.2.bn and 49 more"
    assert [line.name for line in card.sites][:2] == ["layer0.0.bn", "layer0.1.bn"]
    assert (card.sites[1].error, card.sites[1].mse, card.sites[1].correlation) == (
        "0.0005",
        "2.5e-07",
        "2.5e-07",
    )
    assert card.sites[3].source == "nets/new.py:43"
    assert len(card.sites) == 52
    assert (card.of, card.remedy) == ("layer0.0.bn", "set eps to 1e-05")
    assert dict(card.figures)["largest of all 52 sites"] == "0.001, MSE 1e-06, at layer0.0.bn"
    assert card.pictures


def test_a_card_names_the_line_of_the_call_on_both_sides() -> None:
    [card] = culprits.culprits(samples.caused(samples.cause()))
    assert card.source == (("candidate", "nets/new.py:40"), ("baseline", "nets/old.py:20"))
    assert (card.name, card.sites) == ("layer0.0.bn", ())


def test_a_card_tells_mean_squared_error_and_correlation() -> None:
    figures = dict(shown(samples.diverged()).figures)
    assert figures["MSE on identical inputs"] == "2.5e-07"
    assert figures["Pearson's r on identical inputs"] == "0.99999975 (1 - r 2.5e-07)"
    assert figures["MSE in the whole model"] == "2.5e-07"


def test_what_a_policy_accepts_is_shown_as_the_cell_has_it_that_found_it() -> None:
    exact, single = samples.accepted().cells
    other = msgspec.structs.replace(single, culprits=(), exhibits=())
    found = shown(msgspec.structs.replace(samples.accepted(), cells=(exact, other)))
    assert found.pictured.startswith("On the baseline's inputs in cpu/float64")


def test_what_a_policy_accepts_has_no_fix() -> None:
    assert shown(samples.diverged()).remedy
    assert shown(samples.accepted()).remedy == ""


def test_a_plane_becomes_a_picture_of_as_many_pixels() -> None:
    found = painting.picture(samples.plane(values=bytes([0, 127, 254, 255] * 4)), "x", diverging=True)
    assert found is not None
    image = Image.open(io.BytesIO(base64.b64decode(found.address.partition(",")[2]))).convert("RGB")
    assert image.size == (4, 4)
    low, middle, high, broken = (image.getpixel((x, 0)) for x in range(4))
    assert low == (5, 48, 97)
    assert middle == (247, 247, 247)
    assert high == (103, 0, 31)
    assert broken == (230, 0, 230)


@pytest.mark.parametrize(
    "plane",
    [
        None,
        Plane(rows=2, columns=2, low=0, high=1, values="not base64"),
        Plane(rows=2, columns=2, low=0, high=1, values=base64.b64encode(b"abc").decode()),
        Plane(rows=-2, columns=-2, low=0, high=1, values=base64.b64encode(b"abcd").decode()),
        Plane(rows=2**40, columns=2**40, low=0, high=1, values=""),
        Plane(rows=0, columns=0, low=math.nan, high=1, values=""),
    ],
)
def test_a_plane_that_holds_other_than_it_says_is_no_picture(plane: Plane | None) -> None:
    assert painting.picture(plane, "x") is None


def test_bars_are_as_high_as_their_shares_and_the_smallest_still_shows() -> None:
    path = painting.bars([1.0, 0.5, 1e-9, 0.0], 100, 50)
    assert [part.split("v-")[1].split("H")[0] for part in path.split("M")[1:]] == ["50.0", "25.0", "1.0"]


def test_an_empty_histogram_is_not_drawn() -> None:
    nothing = Histogram(low=0, high=0, counts=(), equal=9)
    bare = samples.exhibit(histogram=nothing, channels=())
    verification = samples.diverged()
    cell = msgspec.structs.replace(verification.cells[0], exhibits=(bare,))
    found = shown(msgspec.structs.replace(verification, cells=(cell,)))
    assert (found.histogram, found.channels) == (None, None)
