"""A folder of photographs: a folder a class, divided by the seed, prepared as `run` prepares photographs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from tests.photographs import CLASSES, make
from verifier.errors import InputError, UsageError
from verifier.inputs import images
from verifier.training.data import read
from verifier.training.folder import read_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from verifier.training.data import Data

COUNT = 6  # photographs a class


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("figures"), COUNT, size=48)


@pytest.fixture
def data(folder: Path) -> Data:
    return read_folder(folder, 32, seed=0)


def seen(pictures: Tensor) -> set[bytes]:
    return {picture.numpy().tobytes() for picture in pictures}


def test_folders_are_classes_and_one_in_five_of_each_is_held_out(data: Data) -> None:
    assert data.classes == tuple(sorted(CLASSES))
    assert torch.bincount(data.labels).tolist() == [COUNT - 1] * 5
    assert torch.bincount(data.test_labels).tolist() == [1] * 5
    assert (data.images.shape[1:], data.images.dtype) == ((3, 32, 32), torch.uint8)
    assert not seen(data.images) & seen(data.test_images)
    assert "both parts" not in data.source


def test_the_seed_draws_what_is_held_out(folder: Path, data: Data) -> None:
    again, other = read_folder(folder, 32, seed=0), read_folder(folder, 32, seed=1)
    assert seen(again.test_images) == seen(data.test_images) != seen(other.test_images)
    everything = seen(data.images) | seen(data.test_images)
    assert everything == seen(other.images) | seen(other.test_images)
    assert again.digest == data.digest != other.digest


def test_pictures_are_prepared_as_run_prepares_them(folder: Path, data: Data) -> None:
    cats = images(folder / "cat", None, 32).args[0]
    ours = [*data.images[data.labels == 0], *data.test_images[data.test_labels == 0]]
    found = data.prepared(torch.stack(ours))
    assert all(min(float((cat - one).abs().max()) for one in found) < 1e-6 for cat in cats)


def test_a_photograph_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    upright = Image.new("RGB", (40, 40))
    upright.paste((255, 0, 0), (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        upright.save(tmp_path / name / "0.png")
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / name / "1.png", exif=exif)
    found = read_folder(tmp_path, 32, seed=0)
    assert all(bool((picture[0, :12] == 255).all()) for picture in (*found.images, *found.test_images))
    assert "2 pictures are in both parts" not in found.source
    assert "1 pictures are in both parts" in found.source  # the two are the same picture


def test_other_scales_are_the_same_photographs_at_other_sizes(folder: Path, data: Data) -> None:
    found = read_folder(folder, 32, seed=0, scales=(40, 32))
    large, same = found.test_scales
    assert (large.shape[-2:], len(large)) == ((40, 40), len(found.test_labels))
    assert torch.equal(same, found.test_images)
    smaller = torch.nn.functional.interpolate(large.float(), (32, 32), mode="bilinear", antialias=True)
    distances = (smaller[:, None] - same[None].float()).abs().mean((2, 3, 4))
    assert distances.argmin(1).tolist() == list(range(len(same)))
    assert data.tested == (data.test_images,)


def test_what_is_hidden_is_no_class_and_no_photograph(folder: Path, data: Data, tmp_path: Path) -> None:
    copy = make(tmp_path / "figures", COUNT, size=48)
    (copy / ".cache").mkdir()
    (copy / ".cache" / "0.jpg").write_bytes(b"")
    (copy / "cat" / "._0000.jpg").write_bytes(b"")
    (copy / "cat" / "notes.txt").write_text("no photograph", encoding="utf-8")
    assert read_folder(copy, 32, seed=0).digest == data.digest


def test_a_folder_is_named_and_takes_no_published_name(folder: Path, data: Data) -> None:
    assert data.name == f"folder {folder.name}"
    assert read(str(folder), folder, size=32).digest == data.digest


def classes(**counts: int) -> Callable[[Path], None]:
    def lay(place: Path) -> None:
        for name, count in counts.items():
            (place / name).mkdir()
            for number in range(count):
                Image.new("RGB", (40, 40), (number, 0, 0)).save(place / name / f"{number}.png")

    return lay


def torn(place: Path) -> None:
    classes(a=2, b=2)(place)
    (place / "b" / "1.png").write_bytes(b"half of it")


@pytest.mark.parametrize(
    ("lay", "said"),
    [
        (classes(), "holds no folders"),
        (classes(a=3), "holds only the class a"),
        (classes(a=2, b=1), "b holds fewer than two photographs"),
        (classes(train=2, val=2), "holds train and val, which are parts and no classes.*Give .*train, say"),
        (torn, r"1 of 4 images in .* cannot be read: b.1\.png"),
    ],
    ids=["nothing", "one class", "one photograph", "parts", "a torn file"],
)
def test_a_folder_that_is_none_of_classes_is_refused(
    tmp_path: Path, lay: Callable[[Path], None], said: str
) -> None:
    lay(tmp_path)
    with pytest.raises(InputError, match=said):
        read_folder(tmp_path, 32, seed=0)


def test_only_a_folder_has_a_size_to_choose(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="digits has images of 32 x 32 pixels"):
        read("digits", tmp_path, size=64)
    with pytest.raises(UsageError, match="and folders that hold"):
        read(str(tmp_path / "nowhere"), tmp_path)
