"""What is learnt from: handwritten digits that need no download, CIFAR-10 or a folder by torchvision's loaders."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from verifier.errors import CannotRunError, DownloadError, UsageError, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

DATA = ("digits", "cifar10")

_HELD_OUT = 5  # every fifth digit is kept for testing
_SPLIT_SEED = 0
_PHOTOGRAPH = 224  # pixels


@dataclass(frozen=True)
class Data:
    """Images and labels to learn from, and others to test on.

    Attributes:
        name: One of `DATA`, or what a folder is called.
        source: Where it comes from, for the record.
        images: (N, 3, H, W), uint8; H and W are 32 but in a folder.
        labels: (N,), int64.
        test_images: (M, 3, H, W), uint8.
        test_labels: (M,), int64.
        classes: Names of the classes.
        mean: Of each channel of the training images in 0..1.
        std: Their standard deviations.
        padding: Zeros around an image before a random part of its size is cut out of it.
        flips: Whether mirrored images are of the same class.
        test_scales: The test images at other sizes, (M, 3, h, w) each, to be told by all of them together; none for
            `test_images` alone.
        digest: SHA-256 of what is no published data.
    """

    name: str
    source: str
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    padding: int
    flips: bool
    test_scales: tuple[Tensor, ...] = ()
    digest: str = ""

    @property
    def tested(self) -> tuple[Tensor, ...]:
        """The test images at each size they are told at."""
        return self.test_scales or (self.test_images,)

    def prepared(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 images (N, 3, H, W) as networks take them: divided by 255, less the mean, by the deviation."""
        mean, std = (torch.tensor(each, dtype=dtype).view(3, 1, 1) for each in (self.mean, self.std))
        return (images.to(dtype) / 255 - mean) / std

    def batches(
        self, size: int, *, seed: int, epoch: int, augment: bool = True, dtype: torch.dtype = torch.float32
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in an order, with crops and flips, that depend on the seed and the epoch alone.

        A last batch of one sample is left out: batch norm has no variance of one number.
        """
        draws = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.labels), generator=draws)
        for chosen in torch.split(order, size):
            if len(chosen) > 1:
                images = self.images[chosen]
                if augment:
                    images = augmented(images, self.padding, flips=self.flips, draws=draws)
                yield self.prepared(images, dtype), self.labels[chosen]


def augmented(images: Tensor, padding: int, *, flips: bool, draws: torch.Generator) -> Tensor:
    """Each of (N, C, H, W) images padded with zeros, cut to its size at a place of its own, and mirrored or not."""
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(2 * padding + 1, (2, count), generator=draws)
    rows = (top[:, None] + torch.arange(height))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width))[:, None, None, :]
    if flips:
        mirrored = torch.rand(count, generator=draws) < 0.5
        columns = torch.where(mirrored.view(-1, 1, 1, 1), columns.flip(-1), columns)
    return padded[
        torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1), rows, columns
    ]


def read(
    name: str, directory: Path, *, size: int | None = None, seed: int = 0, scales: Sequence[int] = ()
) -> Data:
    """The data called `name`.

    Args:
        name: One of `DATA`, or a folder that holds a folder of photographs for each class.
        directory: Where CIFAR-10 lies or is downloaded to.
        size: Height and width in pixels of a folder's pictures; None for 224.
        seed: For what of a folder is held out for testing.
        scales: Sizes in pixels to test at instead.

    Raises:
        UsageError: There is no such data, or it does not come in this size.
        DownloadError: CIFAR-10 is not there and cannot be downloaded, or its archive is damaged.
        CannotRunError: The package that has it is not installed, or memory is too small for it.
    """
    if name not in DATA:
        from verifier.training.folder import read_folder  # noqa: PLC0415 - which imports this

        if not Path(name).is_dir():
            known = (
                f"known are {', '.join(DATA)}, and folders that hold a folder of photographs for each class."
            )
            raise UsageError(f"unknown data {name!r}{suggestion(name, DATA) or f'; {known}'}")
        return read_folder(Path(name), size or _PHOTOGRAPH, seed, scales)
    if size is not None:
        raise UsageError(f"--image-size is for a folder of photographs; {name} has images of 32 x 32 pixels.")
    found = _digits() if name == "digits" else _cifar10(directory)
    return replace(found, test_scales=tuple(resized(found.test_images, each) for each in scales))


def resized(images: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) uint8 images at another size, bilinear, antialiased."""
    large = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return large.round().clamp(0, 255).to(torch.uint8)


def _digits() -> Data:
    """1,797 digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998, UCI machine learning repository), at 32 x 32."""
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415 - a second, and an optional package
    except ImportError as error:
        raise CannotRunError(
            "the digits come with scikit-learn, which is not installed: pip install scikit-learn. Or use --data "
            "cifar10."
        ) from error
    loaded = load_digits()
    grey = torch.from_numpy(loaded.images).float().unsqueeze(1) / 16  # 17 levels of ink
    large = F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
    images = (large * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(loaded.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    held_out = torch.arange(len(labels)) % _HELD_OUT == 0
    train, test = order[~held_out], order[held_out]
    seen = images[train].float() / 255
    return Data(
        name="digits",
        source="scikit-learn's handwritten digits, 8 x 8 enlarged to 32 x 32",
        images=images[train],
        labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        classes=tuple(map(str, range(10))),
        mean=(float(seen.mean()),) * 3,
        std=(float(seen.std()),) * 3,
        padding=2,
        flips=False,
    )


def _cifar10(directory: Path) -> Data:
    """60,000 photographs of ten classes (Krizhevsky, 2009), with the mean and deviation the article gives."""
    try:
        from torchvision.datasets import CIFAR10  # noqa: PLC0415 - half a second
    except ImportError as error:
        raise CannotRunError(
            "torchvision, which reads CIFAR-10, does not import here. Install builds of torch and torchvision that "
            "belong together, or use --data digits."
        ) from error
    place = f"Put {CIFAR10.filename} from {CIFAR10.url} in {directory} and run again."
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            train = CIFAR10(str(directory), train=True, download=True)
            test = CIFAR10(str(directory), train=False)
    except OSError as error:  # URLError is one
        raise DownloadError(f"CIFAR-10 could not be downloaded ({error}). {place}") from error
    except RuntimeError as error:  # a checksum is wrong
        raise DownloadError(f"CIFAR-10 in {directory} is damaged ({error}). Delete it. {place}") from error

    def channels_first(array: object) -> Tensor:
        return torch.as_tensor(array).permute(0, 3, 1, 2).contiguous()

    return Data(
        name="cifar10",
        source="CIFAR-10, read by torchvision",
        images=channels_first(train.data),
        labels=torch.tensor(train.targets),
        test_images=channels_first(test.data),
        test_labels=torch.tensor(test.targets),
        classes=tuple(train.classes),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        padding=4,
        flips=True,
    )
