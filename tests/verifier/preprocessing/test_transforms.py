"""The from-scratch transforms against torchvision's, on real photographs: the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from torchvision import transforms as torchvisions
from torchvision.transforms import functional, v2

from reference_models import preprocessing as transforms
from verifier.errors import UsageError
from verifier.preprocessing import RECIPES, FromScratch, PhotographComparison, recipe
from verifier.preprocessing.candidates import seeded
from verifier.preprocessing.recipes import CIFAR10, read_with_pillow

if TYPE_CHECKING:
    from reference_models.preprocessing import Bytes

FOLDER = Path(skimage.__file__).parent / "data"
PHOTOGRAPHS = [FOLDER / name for name in ("chelsea.png", "rocket.jpg", "coffee.png")]
SHAPES = [(75, 50), (50, 75), (64, 64), (37, 111), (9, 5), (1, 1), (90, 12)]


@pytest.fixture(scope="module")
def photograph() -> Bytes:
    return transforms.read(PHOTOGRAPHS[0])[60:180, 100:260]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_gives_torchvisions_bits_on_photographs(name: str) -> None:
    chosen = recipe(name, 64 if name != "cifar-train" else None)
    compared = PhotographComparison(chosen, FromScratch(chosen), seed=3)
    for path in PHOTOGRAPHS[: 1 if name == "multi-scale" else 3]:
        compared.add(path)
    found = compared.record()
    assert found.status == "exact", [(each.name, each.status, each.cause) for each in found.stages]
    assert {each.status for each in found.stages} == {"exact"}
    random = {each.name for each in found.stages if each.drawn_alike is not None}
    assert random == {stage.name for stage in chosen.stages if stage.draw is not None}
    assert all(each.drawn_alike is not False for each in found.stages)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_torchvisions_bits(
    shape: tuple[int, int], tmp_path: Path, photograph: Bytes
) -> None:
    Image.fromarray(photograph[: shape[0], : shape[1]]).save(tmp_path / "a.png")
    chosen = recipe("classification", 32)
    compared = PhotographComparison(chosen, FromScratch(chosen))
    compared.add(tmp_path / "a.png")
    assert compared.record().status == "exact"


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read_as_the_baseline_reads_it(
    mode: str, tmp_path: Path, photograph: Bytes
) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        Image.fromarray(values).save(path)
        expected = np.round(values / 257)
        np.testing.assert_array_equal(transforms.read(path)[..., 0], expected)
    else:
        source = Image.fromarray(photograph)
        (source.convert("L") if mode == "LA" else source).convert(mode).save(path)
    np.testing.assert_array_equal(transforms.read(path), np.asarray(read_with_pillow(path)))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_pictures_are_turned_upright_as_pillow_turns_them(
    orientation: int, ending: str, tmp_path: Path, photograph: Bytes
) -> None:
    exif = Image.Exif()
    exif[transforms.ORIENTATION] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(photograph).save(path, exif=exif)
    np.testing.assert_array_equal(transforms.read(path), np.asarray(read_with_pillow(path)))


def test_colours_are_changed_as_pillow_changes_them(photograph: Bytes) -> None:
    image = Image.fromarray(photograph)
    generator = np.random.default_rng(0)
    for _ in range(20):
        strength, turns = float(generator.uniform(0, 2)), float(generator.uniform(-0.5, 0.5))
        for order, step, value in (
            (0, functional.adjust_brightness, strength),
            (1, functional.adjust_contrast, strength),
            (2, functional.adjust_saturation, strength),
            (3, functional.adjust_hue, turns),
        ):
            drawn = ((order,), strength, strength, strength, turns)
            np.testing.assert_array_equal(
                transforms.jitter(photograph, drawn), np.asarray(step(image, value)), err_msg=step.__name__
            )


def test_a_composed_transform_of_torchvision_draws_what_these_draw(photograph: Bytes) -> None:
    """Not through the comparison: one seed, two programs written down one after the other."""
    mean, std = CIFAR10
    composed = torchvisions.Compose(
        [
            torchvisions.RandomCrop(32, padding=4),
            torchvisions.RandomHorizontalFlip(),
            torchvisions.ColorJitter(0.4, 0.4, 0.4, 0.1),
            torchvisions.ToTensor(),
            torchvisions.Normalize(mean, std),
        ]
    )
    for seed in range(6):
        torch.manual_seed(seed)
        expected = composed(Image.fromarray(photograph))
        torch.manual_seed(seed)
        padded = transforms.pad(photograph, 4, 4, 4, 4)
        top, left = transforms.draw_window(padded.shape[0], padded.shape[1], 32)
        cut = transforms.crop(padded, top, left, 32, 32)
        cut = transforms.flip(cut) if transforms.draw_flip() else cut
        cut = transforms.jitter(cut, transforms.draw_jitter((0.4, 0.4, 0.4, 0.1)))
        assert torch.equal(transforms.normalise(transforms.scale(cut), mean, std), expected)


def test_the_random_shorter_side_is_torchvisions_with_its_missing_pixels(photograph: Bytes) -> None:
    resize = next(step for step in transforms.RECIPES["imagenet-train"](224) if step.name == "resize")
    assert resize.draw is not None
    short = 0
    stage = v2.RandomShortestSize(list(range(256, 481)))
    for seed in range(200):
        seeded(seed, 0, 0)
        expected = stage.make_params([Image.new("RGB", (417, 333))])["size"]
        seeded(seed, 0, 0)
        assert resize.draw(333, 417) == expected
        seeded(seed, 0, 0)
        short += expected[0] == 256 + int(torch.randint(225, ())) - 1
    assert 0 < short < 40


def test_ten_crops_are_torchvisions_in_its_order(photograph: Bytes) -> None:
    expected = functional.ten_crop(Image.fromarray(photograph), [51, 51])
    for made, wanted in zip(transforms.ten_crops(photograph, 51), expected, strict=True):
        np.testing.assert_array_equal(made, np.asarray(wanted))


def test_a_window_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="no window"):
        transforms.draw_window(10, 40, 32)


def test_an_unknown_recipe_suggests_its_neighbours() -> None:
    with pytest.raises(UsageError, match="did you mean 'ten-crop'"):
        recipe("ten-crops")
