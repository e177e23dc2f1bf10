from __future__ import annotations

from reports import signs, tree
from tests import samples
from verifier.records import PairResult, Status


def site(
    index: int, baseline: str | None, candidate: str | None = None, status: Status = Status.OK
) -> PairResult:
    return PairResult(
        index=index, baseline=baseline, candidate=candidate or baseline, op="relu", shape=(1,), status=status
    )


def shape_of(node: tree.Node) -> list[object]:
    return [each if isinstance(each, int) else (each.label, shape_of(each)) for each in node.inside]


def test_sites_lie_in_their_modules_in_order_of_execution() -> None:
    rows = [site(k, name) for k, name in enumerate(("conv1", "l.0.conv", "l.0.relu", "l.1.conv", "fc"))]
    assert shape_of(tree.grow(rows)) == [0, ("l", [("0", [1, 2]), ("1", [3])]), 4]


def test_modules_that_hold_one_module_are_told_with_it() -> None:
    rows = [
        site(k, name) for k, name in enumerate(("encoder.layers.0.a", "encoder.layers.1.a", "head.fc.out"))
    ]
    assert shape_of(tree.grow(rows)) == [("encoder.layers", [("0", [0]), ("1", [1])]), ("head.fc", [2])]


def test_what_only_the_candidate_has_stands_with_what_it_leads_to() -> None:
    rows = [site(0, "a.conv"), site(1, None, "stages.3.extra"), site(2, "b.relu"), site(3, None, "tail.last")]
    assert shape_of(tree.grow(rows)) == [("a", [0]), ("b", [1, 2]), 3]


def test_every_row_is_in_the_tree_once() -> None:
    rows = samples.deep(500, ("cpu/float64",)).cells[0].layers
    assert sorted(tree.grow(rows).rows()) == list(range(500))


def test_a_module_is_marked_with_the_worst_inside_in_each_cell() -> None:
    bad = [site(0, "a.x"), site(1, "b.y", status=Status.CULPRIT), site(2, "b.z", status=Status.CARRIES)]
    good = [site(0, "a.x"), site(1, "b.y"), site(2, "b.z")]
    label, inside, worst, wrong = tree.tree([bad, good])
    words = [signs.BY_SEVERITY[each] for each in worst]
    assert (label, words, wrong) == ("", [Status.CULPRIT, Status.OK], [1, 0])
    assert [[signs.BY_SEVERITY[each] for each in node[2]] for node in inside] == [
        [Status.OK, Status.OK],
        [Status.CULPRIT, Status.OK],
    ]


def test_names_nest_no_deeper_than_a_page_can_show() -> None:
    root = tree.grow([site(0, ".".join("ab" * 5000)), site(1, ".".join("ac" * 5000))])
    assert root.rows() == [0, 1]
