"""Photographs of one's own to learn from: one folder a class, found by torchvision's loader, decoded once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from verifier.errors import CannotRunError, InputError
from verifier.inputs import read_photographs
from verifier.recognise.preparations import IMAGENET
from verifier.training.data import Data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_HELD_OUT = 5  # one picture of so many, in each class, is kept for testing
_SHIFT = 8  # a picture is shifted by up to so small a part of its size, as CIFAR-10's are: 4 of 32 pixels
_EXPECTED = "--data takes a folder that holds one folder of photographs for each class"
_PARTS = frozenset({"train", "training", "val", "valid", "validation", "test"})


def read_folder(directory: Path, size: int, seed: int, scales: Sequence[int] = ()) -> Data:
    """The photographs of a folder of classes: upright, RGB, resized and cut to `size` as `run --images` does.

    The folders in `directory` are the classes, in the order of their names; photographs are searched inside them.
    Of each class one in five, at least one, is drawn by `seed` and held out for testing.

    Args:
        directory: The folder of folders.
        size: Height and width in pixels.
        seed: Of the split.
        scales: Sizes to test at instead.

    Raises:
        InputError: There are no two classes of two pictures each, or pictures cannot be read.
        CannotRunError: torchvision does not import, or the pictures do not fit into memory.
    """
    classes, files, labels = _found(directory)
    held_out = _held_out(labels, len(classes), seed)
    _check_memory(len(files), size)
    tested = {file for file, held in zip(files, held_out.tolist(), strict=True) if held}
    made = read_photographs(
        files,
        lambda file: _pictures(file, (size, *(scales if file in tested else ()))),
        directory,
        lambda file: str(file.relative_to(directory)),
    )
    images = torch.stack([each[0] for each in made])
    several = [each[1:] for each in made if len(each) > 1]
    twice = {_digest(image) for image in images[~held_out]} & {_digest(image) for image in images[held_out]}
    also = f"; {len(twice)} pictures are in both parts" if twice else ""
    return Data(
        name=f"folder {directory.resolve().name}",
        source=f"photographs from {directory}, {size} x {size}, one in {_HELD_OUT} held out by seed {seed}{also}",
        images=images[~held_out],
        labels=labels[~held_out],
        test_images=images[held_out],
        test_labels=labels[held_out],
        classes=classes,
        mean=IMAGENET[0],
        std=IMAGENET[1],
        padding=size // _SHIFT,
        flips=True,
        test_scales=tuple(torch.stack(each) for each in zip(*several, strict=True)),
        digest=_digest(images, labels, held_out),
    )


def _found(directory: Path) -> tuple[tuple[str, ...], list[Path], Tensor]:
    """The classes, the files and their labels, as torchvision's loader has them; nothing hidden is looked into."""
    try:
        from torchvision.datasets import ImageFolder  # noqa: PLC0415 - half a second
        from torchvision.datasets.folder import IMG_EXTENSIONS  # noqa: PLC0415 - half a second
    except ImportError as error:
        raise CannotRunError(
            "torchvision, which reads folders of photographs, does not import here. Install builds of torch and "
            "torchvision that belong together, or use --data digits."
        ) from error

    def is_photograph(path: str) -> bool:
        return path.lower().endswith(IMG_EXTENSIONS) and not Path(path).name.startswith(".")

    try:
        classes = sorted(each.name for each in _folders(directory))
        if not classes:
            raise InputError(f"{directory} holds no folders: {_EXPECTED}, two at least.")
        numbers = {name: number for number, name in enumerate(classes)}
        found = ImageFolder.make_dataset(
            str(directory), numbers, is_valid_file=is_photograph, allow_empty=True
        )
    except OSError as error:
        raise InputError(f"{directory} cannot be read: {error.strerror or error}.") from error
    labels = torch.tensor([label for _, label in found], dtype=torch.int64)
    _check_classes(directory, classes, torch.bincount(labels, minlength=len(classes)).tolist())
    return tuple(classes), [Path(path) for path, _ in found], labels


def _check_classes(directory: Path, classes: Sequence[str], counts: Sequence[int]) -> None:
    if all(name.lower() in _PARTS for name in classes):
        raise InputError(
            f"{directory} holds {' and '.join(classes)}, which are parts and no classes: {_EXPECTED}, and divides "
            f"them itself. Give {directory / classes[0]}, say."
        )
    if len(classes) < 2:
        raise InputError(f"{directory} holds only the class {classes[0]}: {_EXPECTED}, two at least.")
    few = [name for name, count in zip(classes, counts, strict=True) if count < 2]
    if few:
        raise InputError(
            f"{directory / few[0]} holds fewer than two photographs: a class needs one to learn from and one to be "
            "tested on. Add some, or remove it."
        )


def _folders(directory: Path) -> list[Path]:
    """The folders in it that are not hidden."""
    return [each for each in directory.iterdir() if each.is_dir() and not each.name.startswith(".")]


def _held_out(labels: Tensor, classes: int, seed: int) -> Tensor:
    """Which are kept for testing: bool, (N,)."""
    draws = torch.Generator().manual_seed(seed)
    kept = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(classes):
        members = (labels == label).nonzero().flatten()
        order = members[torch.randperm(len(members), generator=draws)]
        kept[order[: max(1, len(members) // _HELD_OUT)]] = True
    return kept


def _pictures(file: Path, sizes: Sequence[int]) -> list[Tensor]:
    """One photograph at each size: uint8, (3, size, size)."""
    from torchvision.transforms import functional  # noqa: PLC0415 - half a second

    from verifier.preprocessing.recipes import classification, read_with_pillow  # noqa: PLC0415 - needs Pillow

    upright = read_with_pillow(file)
    found = []
    for size in sizes:
        picture: Any = upright
        _, resize, crop, *_ = classification(size).stages
        for stage in (resize, crop):
            (picture,) = stage.torchvision(picture, None)
        found.append(functional.pil_to_tensor(picture))
    return found


def _check_memory(count: int, size: int) -> None:
    """Refuse what would not fit: pictures are held decoded, and once more while they are divided.

    Raises:
        CannotRunError: They do not.
    """
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not every system can tell
        return
    needed = 3 * count * 3 * size**2
    if needed > there:
        raise CannotRunError(
            f"{count:,} pictures of {size} x {size} pixels take {needed / 1e9:.1f} GB of memory while they are read, "
            f"and there are {there / 1e9:.1f} GB. Use a smaller --image-size, or fewer pictures."
        )


def _digest(*tensors: Tensor) -> str:
    """SHA-256 of tensors' bytes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()
