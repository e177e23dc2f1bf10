from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from reports import grouping
from reports.headline import headline
from tests import samples
from verifier.records import HEADLINE, LOADING, Cause, StaticDifference, Status

if TYPE_CHECKING:
    from verifier.storage.saving import Verification


def texts(verification: Verification) -> list[tuple[int, str]]:
    return [(len(group.rows), group.what) for group in grouping.groups(verification)]


def test_one_cause_at_all_sites_is_one_group() -> None:
    [group] = grouping.groups(samples.one_cause())
    assert group.where == "all 52 batch_norm sites"
    assert grouping.names(group, 2) == "layer0.0.bn, layer0.1.bn and 50 more"
    assert grouping.sentence(group) == (
        "all 52 batch_norm sites, first layer0.0.bn: eps is 0.001, the baseline's 1e-05 (confirmed, batchnorm-eps); "
        "up to relative error 0.001 on identical inputs, allowed 1e-12, rule semantics/float64, at layer0.0.bn; "
        "fix: set eps to 1e-05"
    )


def test_at_some_sites_it_is_told_of_how_many() -> None:
    found = samples.caused(samples.cause(), each=3, other=4)
    assert [group.where for group in grouping.groups(found)] == ["3 of 7 batch_norm sites"]
    assert headline(found).startswith(
        "diverged: 3 of 7 batch_norm sites are wrong, first layer0.0.bn: eps is 0.001, the baseline's 1e-05 ("
    )


def test_other_causes_are_other_groups_in_order_of_their_first_sites() -> None:
    other = samples.cause("bias-extra", "it has a bias, the baseline has none", remedy="remove the bias")
    found = samples.caused(samples.cause(), other, each=2)
    assert texts(found) == [
        (2, "eps is 0.001, the baseline's 1e-05"),
        (2, "it has a bias, the baseline has none"),
    ]
    assert "; 2 further culprits" in headline(found)


def test_a_cause_that_is_confirmed_at_some_sites_alone_is_two() -> None:
    doubt = msgspec.structs.replace(samples.cause(), confirmed=False)
    assert len(texts(samples.caused(samples.cause(), doubt, each=2))) == 2


def test_a_cause_told_with_the_name_of_its_site_is_the_same_elsewhere() -> None:
    found = samples.caused(samples.cause(), each=2)
    rows = tuple(
        msgspec.structs.replace(
            row, cause=samples.cause("relu-missing", f"relu is missing before {row.candidate}")
        )
        for row in found.culprits
    )
    [group] = grouping.groups(msgspec.structs.replace(found, culprits=rows))
    assert group.what == "relu is missing before layer0.0.bn"


def test_shapes_and_names_of_neighbours_are_no_other_figures() -> None:
    """What else is told of a site is its own: the others are wrong in the same way, not with other numbers."""
    found = samples.caused(samples.cause(), each=2)
    causes = (
        samples.cause("residual-scaled", f"mul of shape ({k}, 8), {k} x 8, before layer0.{1 - k}.bn is new")
        for k in range(2)
    )
    rows = tuple(
        msgspec.structs.replace(row, cause=cause, status=Status.UNMATCHED)
        for row, cause in zip(found.culprits, causes, strict=True)
    )
    [group] = grouping.groups(msgspec.structs.replace(found, culprits=rows))
    assert group.what == "mul of shape (0, 8), 0 x 8, before layer0.1.bn is new"


def test_figures_of_a_few_sites_are_causes_of_their_own_and_of_many_one() -> None:
    def scaled(count: int) -> Verification:
        causes = (
            samples.cause("weight-scaled", f"its weight is 1.{k} x the baseline's") for k in range(count)
        )
        return samples.caused(*causes)

    assert len(texts(scaled(3))) == 3
    assert texts(scaled(9)) == [
        (9, "its weight is 1.0 x the baseline's; likewise at the others, with other numbers")
    ]


def test_what_nothing_explains_is_not_said_to_have_one_cause() -> None:
    causes = [
        Cause(code="unexplained", summary="nothing that differs as written explains it", confirmed=False)
    ]
    [group] = grouping.groups(samples.caused(*causes, each=6))
    assert group.because == "nothing that differs as written explains it (not confirmed, unexplained)"
    assert not group.confirmed
    assert not group.known


def unloaded() -> Verification:
    conv = samples.cause(
        "weight-not-loaded", "its weight is a fresh draw", remedy="load the baseline's weight"
    )
    norm = samples.cause(
        "running-mean",
        "its running mean is all 0",
        also=("running-var", "weight-not-loaded", "bias-not-loaded"),
    )
    return samples.caused(conv, norm, each=3)


def test_tensors_that_were_not_loaded_are_one_sentence() -> None:
    said = "nothing was loaded: 105 of 122 tensors keep their initial values"
    loading = StaticDifference(kind=LOADING, baseline=None, candidate=None, summary=said)
    found = msgspec.structs.replace(unloaded(), static=(loading,))
    assert texts(found) == [(6, said)]
    assert headline(found) == f"diverged: {said}; all 6 batch_norm sites are wrong, first layer0.0.bn"
    [group] = grouping.groups(found)
    assert grouping.sentence(group).endswith("fix: load the baseline's tensors")
    assert texts(unloaded()) == [(6, "tensors were not loaded")]


def test_a_site_wrong_for_another_reason_as_well_is_no_part_of_that() -> None:
    both = samples.cause("weight-not-loaded", "its weight is a fresh draw; eps is 1", also=("batchnorm-eps",))
    found = samples.caused(samples.cause("weight-not-loaded", "its weight is a fresh draw"), both, each=2)
    assert [count for count, _ in texts(found)] == [2, 2]


def test_culprits_that_were_not_looked_into_are_told_by_what_differs_there() -> None:
    found = samples.caused(None, None)
    assert texts(found) == [(2, "no cause was looked for or found")]
    [first, second] = found.culprits
    written = msgspec.structs.replace(first, differences=("eps 0.001, baseline 1e-05",))
    assert texts(msgspec.structs.replace(found, culprits=(written, second))) == [
        (1, "eps 0.001, baseline 1e-05"),
        (1, "no cause was looked for or found"),
    ]


def test_models_without_a_pair_have_nothing_in_common() -> None:
    found = samples.nothing_in_common()
    assert grouping.nothing_in_common(found) in headline(found)
    assert grouping.nothing_in_common(samples.diverged()) == ""
    regions = msgspec.structs.replace(found.coverage, baseline_share=1.0, candidate_share=1.0)
    assert grouping.nothing_in_common(msgspec.structs.replace(found, coverage=regions)) == ""


def test_a_line_has_its_length_whatever_is_told() -> None:
    found = samples.caused(samples.cause(summary="odd " * 99), each=2)
    rows = tuple(msgspec.structs.replace(row, baseline="features." * 40 + "bn") for row in found.culprits)
    for group in grouping.groups(msgspec.structs.replace(found, culprits=rows)):
        assert len(grouping.line(group, 160)) <= 160
    assert len(headline(msgspec.structs.replace(found, culprits=rows, first_divergence=rows[0]))) <= HEADLINE


def long_named(summary: str, **fields: Any) -> Verification:
    """Two sites of long names on both sides."""
    found = samples.caused(samples.cause(summary=summary, **fields), each=2)
    rows = tuple(
        msgspec.structs.replace(
            row, baseline=f"blocks.{k}.attn.multi_head_attention_forward", candidate=f"layers.{k}.att.o"
        )
        for k, row in enumerate(found.culprits)
    )
    cell = msgspec.structs.replace(found.cells[0], first_divergence=rows[0], culprits=rows, layers=rows)
    return msgspec.structs.replace(found, cells=(cell,), culprits=rows, first_divergence=rows[0])


CONSTANT = "the constant of the division by the root of the width is 3.0 where 2.82843 is right"


def test_names_are_shortened_before_the_cause_is() -> None:
    found = long_named(CONSTANT)
    [group] = grouping.groups(found)
    for said, most in ((headline(found), HEADLINE), (grouping.line(group, 160), 160)):
        assert len(said) <= most
        assert said.endswith(f": {CONSTANT} (confirmed, batchnorm-eps)")


def test_what_does_not_fit_beside_the_names_stands_below_them() -> None:
    [group] = grouping.groups(long_named(CONSTANT))
    assert grouping.told(group, 200, fix=False) == [
        "all 2 batch_norm sites, first blocks.0.attn.multi_head_attention_forward (candidate: layers.0.att.o):",
        f"  {CONSTANT} (confirmed, batchnorm-eps)",
    ]
    whole = grouping.sentence(group).partition("; up to")[0]
    assert grouping.told(group, 300) == [f"{whole}; fix: set eps to 1e-05"]
    assert grouping.told(group, len(whole)) == [whole, "  fix: set eps to 1e-05"]
    assert grouping.told(group, len(whole) - 1, fix=False)[1:] == [f"  {CONSTANT} (confirmed, batchnorm-eps)"]
    odd = " ".join(["odd"] * 80)
    [group] = grouping.groups(long_named(odd, remedy=odd))
    lines = grouping.told(group, 160)
    assert max(map(len, lines)) <= 160
    assert " ".join(map(str.strip, lines)).endswith(f"{odd} (confirmed, batchnorm-eps) fix: {odd}")


def test_the_worst_of_a_group_is_the_farthest_on_identical_inputs() -> None:
    found = samples.one_cause()
    nan = msgspec.structs.replace(found.culprits[7], intrinsic=samples.comparison(float("nan")))
    rows = (*found.culprits[:7], nan, *found.culprits[8:])
    [group] = grouping.groups(msgspec.structs.replace(found, culprits=rows))
    assert group.worst is nan
    assert all(row.status is Status.CULPRIT for row in group.rows)
