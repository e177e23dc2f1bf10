"""Draw otherwise on purpose: the stage is named by its distribution. Draw in another order only: none is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torchvision import transforms as T
from torchvision.transforms import functional

from tests.sweeps import swept
from tests.verifier.preprocessing.test_comparing import PHOTOGRAPHS, Named, compared, opaque, wrong
from verifier.preprocessing import same_distribution

if TYPE_CHECKING:
    from PIL import Image

CIFAR = T.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CROP, FLIP = T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()
LAST = [T.ToTensor(), CIFAR]


def flip_by_numpy(image: Image.Image) -> Any:
    return functional.hflip(image) if np.random.rand() < 0.5 else image  # noqa: NPY002 - as a user's may


def cut(image: Image.Image, room: int, *, together: bool = False) -> Any:
    """A window that begins in one of `room` rows and columns, columns first."""
    padded = functional.pad(image, [4] * 4)
    one = torch.rand(1)
    left, top = (
        int((one if together else torch.rand(1)) * (length - 32 + room - 8)) for length in padded.size
    )
    return functional.crop(padded, top, left, 32, 32)


# steps, the stage to be named, what is said of it
FAULTS: dict[str, tuple[list[Any], str, str]] = {
    "always flipped": ([CROP, T.RandomHorizontalFlip(1.0), *LAST], "flip", "flips 100.0%"),
    "never flipped": ([CROP, T.RandomHorizontalFlip(0.0), *LAST], "flip", "flips 0.0%"),
    "in the corner": (
        [T.Pad(4), Named("crop", lambda p: p.crop((0, 0, 32, 32))), FLIP, *LAST],
        "crop",
        " is 0% to 0%",
    ),
    "in the middle": ([T.Pad(4), T.CenterCrop(32), FLIP, *LAST], "crop", " is 50% to 50%"),
    "the last place never": ([Named("crop", lambda p: cut(p, 8)), FLIP, *LAST], "crop", "0% to 88%"),
    "on the diagonal": (
        [Named("crop", lambda p: cut(p, 9, together=True)), FLIP, *LAST],
        "crop",
        "depend on each other",
    ),
}


@pytest.mark.parametrize("fault", swept(FAULTS, ["never flipped", "in the corner", "on the diagonal"]))
def test_a_stage_that_draws_otherwise_is_named_alone(fault: str) -> None:
    steps, stage, said = FAULTS[fault]
    found = compared(steps, name="cifar-train", size=None)
    assert found.status == "differs"
    assert wrong(found) == [stage] == [found.first_difference]
    assert found.cause is not None
    assert (found.cause.code, found.cause.confirmed) == ("draws-otherwise", True)
    assert said in found.cause.summary


def test_one_photograph_that_happens_to_be_flipped_by_both_is_not_enough() -> None:
    found = [
        compared([CROP, T.RandomHorizontalFlip(p), *LAST], PHOTOGRAPHS[:1], "cifar-train", None)
        for p in (0.0, 1.0)
    ]
    assert [wrong(each) for each in found] == [["flip"], ["flip"]]
    flips = [each for one in found for each in one.stages if each.name == "flip"]
    assert sorted(each.exact for each in flips) == [0, 1]


def test_no_padding_is_named_as_missing() -> None:
    found = compared([T.RandomCrop(32), FLIP, *LAST], name="cifar-train", size=None)
    assert {each.name: each.status for each in found.stages if each.status == "missing"} == {"pad": "missing"}
    assert wrong(found) == ["pad"]


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(opaque([CROP, FLIP, *LAST]), id="unseen"),
        pytest.param([CROP, Named("flip", flip_by_numpy), *LAST], id="other generator"),
        pytest.param(
            [Named("crop", lambda p: cut(p, 9)), FLIP, *LAST], id="columns first", marks=pytest.mark.thorough
        ),
        pytest.param([FLIP, CROP, *LAST], id="flipped first", marks=pytest.mark.thorough),
        pytest.param([T.ToTensor(), CROP, FLIP, CIFAR], id="scaled first"),
    ],
)
def test_what_is_only_drawn_in_another_order_is_no_difference(function: Any) -> None:
    found = compared(function, name="cifar-train", size=None)
    assert found.status in {"exact", "rounding"}
    assert wrong(found) == []
    assert found.cause is None


def test_what_is_drawn_is_read_off_the_final_tensor_alone() -> None:
    found = compared(opaque([CROP, T.RandomHorizontalFlip(1.0), *LAST]), name="cifar-train", size=None)
    assert wrong(found) == ["flip"]
    other = compared(
        opaque([CROP, FLIP, T.ToTensor(), T.Normalize((0.5,) * 3, (0.5,) * 3)]), name="cifar-train"
    )
    assert other.status == "differs"


def test_padding_after_normalising_is_no_match() -> None:
    found = compared([*LAST, CROP, FLIP], name="cifar-train", size=None)
    assert found.status == "differs"
    assert any("what the recipe never makes" in note for note in found.notes)


def test_draws_that_cannot_be_told_are_inconclusive() -> None:
    steps = [T.Resize(300), T.RandomCrop(64), FLIP, T.ColorJitter(0.4, 0.4, 0.4, 0.1), T.ToTensor(), CIFAR]
    found = compared(opaque(steps), PHOTOGRAPHS[:1], "imagenet-train")
    assert found.status == "inconclusive"
    assert "cannot be told from the final tensor alone" in found.notes[0]
    lost = compared(lambda image: opaque(steps)(image) * float("nan"), PHOTOGRAPHS[:1], "imagenet-train")
    assert lost.status == "differs"


def test_samples_of_one_distribution_are_not_taken_for_two() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        one = {"a": generator.integers(0, 9, 600).tolist(), "b": generator.random(600).tolist()}
        other = {"a": generator.integers(0, 9, 9600).tolist(), "b": generator.random(9600).tolist()}
        assert same_distribution.refuted(one, other, same_distribution.count(2)) is None
    shifted = {"a": one["a"], "b": (np.array(one["b"]) * 0.8).tolist()}
    why = same_distribution.refuted(shifted, other, same_distribution.count(2))
    assert why is not None
    assert why.parameter == "b"
