"""The page of an experiment: one file, nothing fetched, everything escaped, the same bytes every time."""

from __future__ import annotations

import itertools
import math
import re
from html.parser import HTMLParser

import msgspec
import pytest

from reports import results
from reports.confusions import compared, confusion
from reports.curves import HEIGHT, LEFT, WIDTH, Curve, chart, powers_of_ten, ticks
from reports.training import page, plain, render
from verifier.records import Environment
from verifier.training.recipe import TrainingRecipe
from verifier.training.records import Epoch, Experiment, Learner, Reference, SampleImage, Twins

PNG = "iVBORw0KGgo="


def epoch(number: int, accuracy: float) -> Epoch:
    return Epoch(
        epoch=number,
        lr=0.1,
        train_loss=1 / number,
        train_accuracy=accuracy,
        test_loss=2 / number,
        test_accuracy=accuracy,
        seconds=2.0,
        images_per_second=50.0,
    )


def learner(name: str, role: str, *, depth: int | None = 20, accuracy: float = 0.9) -> Learner:
    return Learner(
        name=name,
        role=role,
        spec=f"reference:{name}",
        depth=depth,
        parameters=269_722,
        epochs=(epoch(1, 0.5), epoch(2, accuracy)),
        confusion=((7, 1), (0, 2)),
        digest="0123456789abcdef" * 4,
        weights_file=f"{name}-{role}.safetensors",
        published=((0.9125, "the paper"),) if role == "candidate" else (),
    )


@pytest.fixture
def experiment() -> Experiment:
    recipe = TrainingRecipe()
    return Experiment(
        data="digits",
        source="some digits",
        classes=("zero", "<script>one"),
        training_images=100,
        test_images=10,
        recipe=recipe,
        recipe_told=recipe.told(),
        epochs=2,
        device="cpu",
        learners=(learner("net", "candidate"), learner("net", "baseline")),
        twins=(Twins(name="net", first_other_epoch=None, same_weights=True),),
        samples=(SampleImage(png=PNG, label=0, predictions=((0, 0.75), (1, 0.5))),),
        seed=0,
        environment=Environment(
            python="3.12", platform="p", processor="c", packages={}, devices=("cpu",), threads=2, flags={}
        ),
        command="python -m verifier train --arch '<b>net'",
        seconds=4.0,
        created="2026-01-01T00:00:00+00:00",
    )


class Reader(HTMLParser):
    """Notes what a page would fetch, its tags and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_runs_nothing(experiment: Experiment) -> None:
    read = Reader(render(experiment))
    assert "script" not in read.tags
    assert read.fetched
    assert all(each.startswith("data:image/png;base64,") for each in read.fetched)


def test_names_are_escaped(experiment: Experiment) -> None:
    text = render(experiment)
    assert "<script" not in text
    assert "<b>net" not in text
    assert "<script>one" in Reader(text).text


def test_the_same_experiment_gives_the_same_bytes(experiment: Experiment) -> None:
    assert render(experiment) == render(msgspec.structs.replace(experiment))


def test_both_twins_are_on_the_page_and_that_they_learnt_alike(experiment: Experiment) -> None:
    text = Reader(render(experiment)).text
    assert "net (candidate) tells 90.00% of 10 test images rightly" in text
    assert "net: the baseline twin's curves are the same bit for bit, and so are the final weights." in text
    for line in ("net both twins, test", "91.25% (the paper)"):
        assert line in text
    assert "net (baseline): <script>one (50.0%)" in text


def test_twins_that_part_are_said_to(experiment: Experiment) -> None:
    twins = (Twins(name="net", first_other_epoch=2, same_weights=False),)
    said = "net: from epoch 2 on the baseline twin's curves are others."
    parted = msgspec.structs.replace(experiment, twins=twins)
    assert said in Reader(render(parted)).text
    assert said in plain(parted, "out")


def test_the_summary_begins_with_the_verdict_of_the_page(experiment: Experiment) -> None:
    parted = (Twins(name="net", first_other_epoch=2, same_weights=False),)
    for twins, word in ((experiment.twins, "match"), (parted, "inconclusive"), ((), "not compared")):
        found = msgspec.structs.replace(experiment, twins=twins)
        first, empty, *_ = plain(found, "out").splitlines()
        assert first.startswith(f"{word}: ")
        assert first.endswith(" of 10 test images rightly")
        assert not empty


def test_one_epoch_is_no_epochs(experiment: Experiment) -> None:
    told = page(msgspec.structs.replace(experiment, epochs=1)).told[0]
    assert told.startswith("1 epoch of ")
    assert page(experiment).told[0].startswith("2 epochs of ")


def test_networks_of_no_known_depth_have_no_points_by_depth(experiment: Experiment) -> None:
    def by_depth(depth: int | None) -> bool:
        learners = tuple(learner(name, "candidate", depth=depth) for name in ("one", "other"))
        return "Accuracy by depth" in render(
            msgspec.structs.replace(experiment, learners=learners, twins=(), samples=())
        )

    assert by_depth(20)
    assert not by_depth(None)


def test_twins_with_the_same_answers_share_one_confusion_matrix(experiment: Experiment) -> None:
    assert render(experiment).count('class="confusion sideways"') == 1
    other = msgspec.structs.replace(experiment.learners[1], confusion=((6, 2), (0, 2)))
    parted = msgspec.structs.replace(experiment, learners=(experiment.learners[0], other))
    assert render(parted).count('class="confusion sideways"') == 2


def two(experiment: Experiment) -> Experiment:
    """Two networks of two families, the second with published figures of both."""
    small = learner("small", "candidate", accuracy=0.8)
    large = msgspec.structs.replace(
        learner("large", "candidate", depth=200, accuracy=0.9),
        parameters=26_972_200,
        confusion=((6, 2), (1, 1)),
    )
    learners = tuple(
        msgspec.structs.replace(each, family=family) for each, family in ((small, "narrow"), (large, "wide"))
    )
    reference = Reference(
        name="small",
        family="narrow",
        depth=20,
        parameters=269_722,
        accuracy=0.9161,
        minutes=26.0,
        source="an article",
    )
    sample = SampleImage(png=PNG, label=0, predictions=((0, 0.75), (1, 0.5)))
    return msgspec.structs.replace(
        experiment, learners=learners, twins=(), samples=(sample,), references=(reference,)
    )


def test_accuracy_over_size_time_and_depth_keeps_families_apart_beside_what_is_published(
    experiment: Experiment,
) -> None:
    size, time, depth = results.charts(two(experiment))
    for each in (size, time, depth):
        assert [line.label for line in each.lines] == [
            "narrow, candidate",
            "narrow, published",
            "wide, candidate",
        ]
        hues = [line.tone.split()[0] for line in each.lines]
        assert hues[0] == hues[1] != hues[2]
        assert [line.hollow for line in each.lines] == [False, True, False]
    (measured,), (published,) = size.lines[0].dots, size.lines[1].dots
    assert (measured.word, measured.name) == ("20", "small, candidate: 80.00%")
    assert (published.word, published.name) == ("20", "small, an article: 91.61%")
    assert measured.x == published.x
    # 4 seconds and 26 minutes: a mark far to the right of what was measured.
    assert float(time.lines[1].dots[0].x) > float(time.lines[0].dots[0].x) + 100
    assert [tick.text for tick in depth.x_ticks] == ["20", "50", "100", "200"]


def test_a_measure_with_one_network_or_published_ones_alone_has_no_chart(experiment: Experiment) -> None:
    unknown = msgspec.structs.replace(
        two(experiment), learners=(learner("net", "candidate", depth=None),), samples=()
    )
    assert [each.title for each in results.charts(unknown)] == ["Accuracy by size", "Accuracy by time"]
    assert not list(results.charts(experiment))


def test_words_beside_marks_neither_lie_on_each_other_nor_leave_the_chart() -> None:
    names = (("20", "a"), ("56", "b"), ("110", "d"), ("1202", "c"))
    points = ((1.0, 1.0), (1.01, 1.0), (1.02, 1.0), (10.0, 2.0))
    (line,) = chart("", "", "", [Curve("", points, "dots", 0, names)]).lines
    assert [(dot.word, dot.name, dot.left) for dot in line.dots] == [
        ("20", "a", False),
        ("56", "b", True),
        ("", "d", False),
        ("1202", "c", True),
    ]


def test_a_word_does_not_lie_under_another_mark() -> None:
    word, near = Curve("", ((5.0, 1.0),), "dots", 0, (("20", "a"),)), ((5.4, 1.03), (0.0, 0.0), (10.0, 2.0))
    (line, _) = chart("", "", "", [word, Curve("", near, "rings", 1)]).lines
    assert [(dot.word, dot.left) for dot in line.dots] == [("20", True)]


def test_two_networks_matrices_are_beside_each_other_with_their_difference(experiment: Experiment) -> None:
    ((first, second, less),) = page(two(experiment)).confusions
    assert (first.title, second.title, less.title) == ("small", "large", "large less small")
    texts = [[cell.text for cell in cells] for _, cells in less.rows]
    assert texts == [["\N{MINUS SIGN}1", "+1"], ["+1", "\N{MINUS SIGN}1"]]  # (6 - 7, 2 - 1), (1 - 0, 1 - 2)
    assert not any(cell.right for _, cells in less.rows for cell in cells)  # all of it is worse
    back = compared(("a", "b"), ("c", "d"), (((6, 2), (1, 1)), ((7, 1), (0, 2))))[2]
    assert all(cell.right for _, cells in back.rows for cell in cells)


def test_names_of_columns_lie_sideways_only_where_they_are_long() -> None:
    counts = ((1, 0), (0, 1))
    assert [confusion("", names, counts).sideways for names in (("0", "9"), ("0", "truck"))] == [False, True]


def test_each_network_has_a_mark_of_its_own_on_each_sample(experiment: Experiment) -> None:
    (picture,) = page(two(experiment)).pictures
    assert [right for right, _ in picture.said] == [True, False]
    text = Reader(render(two(experiment))).text
    assert "✓ small (candidate): zero" in text
    assert "✗ large (candidate): <script>one" in text


def test_twins_that_say_the_same_of_a_sample_are_told_once(experiment: Experiment) -> None:
    sample = SampleImage(png=PNG, label=0, predictions=((0, 0.75), (0, 0.75)))
    (picture,) = page(msgspec.structs.replace(experiment, samples=(sample,))).pictures
    assert picture.said == ((True, "net: zero (75.0%)"),)


def test_other_scales_are_told(experiment: Experiment) -> None:
    scaled = msgspec.structs.replace(experiment, test_scales=(192, 224))
    assert "Tested at 192, 224 pixels; the mean of the scores tells the class." in Reader(render(scaled)).text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (20, 1202, "20 50 100 200 500 1000 2000"),
        (0.27, 0.27, "0.2 0.5"),
        (1, 1, "1 2"),
        (0.05, 900, "0.01 0.1 1 10 100 1000"),
        (5, 20, "5 10 20"),
    ],
)
def test_an_axis_of_powers_has_few_round_ticks_that_span_the_data(low: float, high: float, said: str) -> None:
    marks = powers_of_ten(math.log10(low), math.log10(high))
    assert " ".join(f"{10**mark:g}" for mark in marks) == said


def test_a_line_goes_where_its_numbers_say() -> None:
    made = chart("", "", "", [Curve("", ((0.0, 0.0), (10.0, 1.0)))])
    (x0, y0), (x1, y1) = (tuple(map(float, point.split(","))) for point in made.lines[0].path.split())
    assert x0 == LEFT
    assert x1 > x0
    assert y1 < y0  # up is larger
    assert 0 <= y1 < y0 <= HEIGHT
    assert x1 <= WIDTH
    assert [tick.text for tick in made.y_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.93, 0.99), (1e-5, 3e-5), (20, 1202), (5, 5), (0, 0), (-3, 7)]
)
def test_ticks_are_few_round_and_span_the_data(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert found[0] <= low
    assert found[-1] >= high
    steps = {f"{b - a:.6e}" for a, b in itertools.pairwise(found)}
    assert len(steps) == 1
    assert re.match(r"[125]\.000000e", steps.pop())


def test_a_loss_is_laid_out_by_its_powers_of_ten() -> None:
    made = chart("", "", "", [Curve("", ((0.0, 0.01), (1.0, 1.0), (2.0, 100.0), (3.0, 0.0)))], powers=True)
    heights = [float(point.split(",")[1]) for point in made.lines[0].path.split()]
    assert len(heights) == 3
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2])
    assert [tick.text for tick in made.y_ticks] == ["0.01", "0.1", "1", "10", "100"]


def test_no_share_is_above_all() -> None:
    made = chart("", "", "", [Curve("", ((1.0, 0.986),))], percent=True)
    assert made.y_ticks[-1].text == "100 %"


def test_numbers_that_are_not_finite_are_left_out() -> None:
    made = chart(
        "", "", "", [Curve("a", ((1.0, float("nan")), (2.0, 3.0))), Curve("b", ((1.0, float("inf")),))]
    )
    assert [line.label for line in made.lines] == ["a"]
