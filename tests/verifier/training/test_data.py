"""Data: what comes out is what was asked for, and a missing archive is one sentence."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from verifier.errors import DownloadError, UsageError
from verifier.training import data

if TYPE_CHECKING:
    from pathlib import Path


def test_digits_keep_every_fifth_image_for_testing_and_none_is_in_both(tmp_path: Path) -> None:
    found = data.read("digits", tmp_path)
    assert (len(found.labels), len(found.test_labels)) == (1437, 360)
    assert found.images.shape[1:] == (3, 32, 32)
    seen = {image.numpy().tobytes() for image in found.images}
    assert not seen & {image.numpy().tobytes() for image in found.test_images}
    assert set(found.test_labels.tolist()) == set(range(10))
    prepared = found.prepared(found.images, torch.float64)
    assert float(prepared.mean()) == pytest.approx(0, abs=1e-6)
    assert float(prepared.std()) == pytest.approx(1, abs=1e-6)


def test_an_epoch_depends_on_seed_and_number_alone(pictures: data.Data) -> None:
    def epoch(seed: int, number: int) -> torch.Tensor:
        torch.rand(3)
        return torch.cat([images for images, _ in pictures.batches(7, seed=seed, epoch=number)])

    assert torch.equal(epoch(0, 1), epoch(0, 1))
    assert not torch.equal(epoch(0, 1), epoch(0, 2))
    assert not torch.equal(epoch(0, 1), epoch(1, 1))


def test_an_epoch_has_every_image_once(pictures: data.Data) -> None:
    labels = torch.cat([labels for _, labels in pictures.batches(8, seed=0, epoch=0)])
    assert torch.equal(labels.sort().values, pictures.labels.sort().values)


def test_augmented_images_are_the_padded_ones_cut_somewhere_and_mirrored_or_not() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4) + 1
    draws = torch.Generator().manual_seed(0)
    shifts, mirrored = set(), set()
    for _ in range(60):
        for before, after in zip(images, data.augmented(images, 1, flips=True, draws=draws), strict=True):
            padded = torch.zeros(3, 6, 6, dtype=torch.uint8)
            padded[:, 1:5, 1:5] = before
            made = {
                (top, left, flip): cut.flip(-1) if flip else cut
                for top in range(3)
                for left in range(3)
                for flip in (False, True)
                for cut in [padded[:, top : top + 4, left : left + 4]]
            }
            found = [which for which, image in made.items() if torch.equal(after, image)]
            assert len(found) == 1
            shifts.add(found[0][:2])
            mirrored.add(found[0][2])
    assert len(shifts) == 9
    assert mirrored == {False, True}


def test_unknown_data_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'cifar10'"):
        data.read("cifar-10", tmp_path)


def test_without_the_archive_and_offline_one_sentence_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "nowhere.tar.gz").as_uri())
    with pytest.raises(DownloadError, match=r"Put cifar-10-python\.tar\.gz from .* and run again"):
        data.read("cifar10", tmp_path / "data")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an archive laid out as CIFAR-10's, four images a batch; torchvision knows its checksums."""
    source = tmp_path / "source" / CIFAR10.base_folder
    source.mkdir(parents=True)
    draws = np.random.default_rng(0)

    def entry(name: str, content: dict[str, Any]) -> list[str]:
        (source / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((source / name).read_bytes()).hexdigest()]

    def batch(name: str) -> list[str]:
        pixels = draws.integers(256, size=(4, 3072), dtype=np.uint8)
        return entry(name, {"data": pixels, "labels": draws.integers(10, size=4).tolist()})

    monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{k}") for k in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch")])
    name, digest = entry("batches.meta", {"label_names": [f"class {k}" for k in range(10)]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    directory = tmp_path / "data"
    directory.mkdir()
    with tarfile.open(directory / CIFAR10.filename, "w:gz") as tar:
        tar.add(source, CIFAR10.base_folder)
    digest = hashlib.md5((directory / CIFAR10.filename).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "tgz_md5", digest)
    return directory


def test_cifar_10_is_read_from_an_archive_that_lies_there(archive: Path) -> None:
    found = data.read("cifar10", archive)
    assert found.images.shape == (20, 3, 32, 32)
    assert found.test_images.shape == (4, 3, 32, 32)
    assert found.classes[3] == "class 3"
    raw = pickle.loads((archive / CIFAR10.base_folder / "test_batch").read_bytes())
    assert found.test_labels.tolist() == raw["labels"]
    # A row has 1,024 red values first, then green, then blue.
    assert np.array_equal(found.test_images[1].numpy().reshape(-1), raw["data"][1])


def test_a_damaged_archive_is_not_used(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (archive / CIFAR10.filename).write_bytes(b"not what it was")
    monkeypatch.setattr(CIFAR10, "url", (archive / "nowhere.tar.gz").as_uri())
    with pytest.raises(DownloadError, match="CIFAR-10"):
        data.read("cifar10", archive)
