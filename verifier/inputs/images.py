"""Photographs, prepared for both models."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import torch

from verifier.errors import InputError, ModelError, VerifierError
from verifier.inputs.given import Inputs, check_batch_size, described, listed, parse_image_size, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.records import Preprocessing


T = TypeVar("T")

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp"})


# Colour photographs in scikit-image's wheel itself; its other images would be downloaded.
SAMPLES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)


def images(
    directory: str | Path,
    batch_size: int | None,
    image_size: int,
    candidate: str | None = None,
    seed: int = 0,
) -> Inputs:
    """The first `batch_size` photographs of a directory, or all, preprocessed as for ImageNet: float32.

    JPEG, PNG and WebP files directly in `directory` are taken in the order of their names; the directory
    `samples` stands for photographs that come with scikit-image. Each is turned upright as its EXIF data
    says, converted to RGB, its short side resized to 8/7 of `image_size` (256 for 224; bilinear, with
    antialiasing), cropped to the centre, scaled to 0..1 and normalised by ImageNet's mean and standard
    deviation. This is torchvision's preprocessing for classification, except that torchvision leaves
    photographs on their side.

    The candidate's preprocessing, if `candidate` names one (`verifier.preprocessing.named`), is compared with it
    stage by stage. Where they differ beyond rounding, `other` holds what the candidate makes of the photographs.
    `seed` is for what it draws.

    Raises:
        InputError: The directory is missing or without images, scikit-image is not installed for `samples`,
            or images cannot be read; these are counted and the first ones named.
        SourceError: `candidate` leads to no preprocessing.
        ModelError: The candidate's preprocessing raises, or makes tensors of several shapes.
    """
    if batch_size is not None:
        check_batch_size(batch_size)
    files, origin = photographs(directory)
    return prepared_alike(files[:batch_size], origin, image_size, candidate, seed)


def prepared_alike(
    files: Sequence[Path], origin: str, image_size: int, candidate: str | None, seed: int
) -> Inputs:
    """These photographs as `images` gives them, which come from what is called `origin`."""
    parse_image_size(image_size)
    # Only photographs need these.
    from verifier.preprocessing import PhotographComparison, named, prepared, recipe  # noqa: PLC0415
    from verifier.preprocessing.photographs import MOST_PIXELS  # noqa: PLC0415

    chosen = recipe("classification", image_size)
    compared = None if candidate is None else PhotographComparison(chosen, named(candidate, chosen), seed)
    if image_size**2 > MOST_PIXELS:
        raise InputError(
            f"pictures of {image_size:.4g} x {image_size:.4g} pixels are larger than the {MOST_PIXELS // 10**6} "
            "megapixels that photographs are prepared in; use a smaller --image-size"
        )
    names = tuple(file.name for file in files)
    if compared is None:
        alone = read_photographs(files, lambda file: prepared(file, chosen).output[0])
        return described((torch.stack(alone),), {}, origin, names)
    made = read_photographs(files, compared.add)
    record = compared.record()
    other = None
    if record.status == "differs":
        stacked = _stacked([c for _, c in made], record)
        other = described((stacked,), {}, f"{origin}, by {candidate}", names)
        record = msgspec.structs.replace(record, applied=True)
    given = described((torch.stack([b[0] for b, _ in made]),), {}, origin, names)
    return replace(given, other=other, preprocessing=record)


def photographs(directory: str | Path) -> tuple[list[Path], str]:
    """The photographs of a directory in the order of their names, or the samples, and what to call them.

    Raises:
        InputError: There are none.
    """
    if str(directory) == "samples":
        return _samples(), "sample photographs from scikit-image"
    return _in_directory(Path(directory)), f"photographs from {directory}"


def read_photographs(
    files: Sequence[Path],
    prepare: Callable[[Path], T],
    place: Path | None = None,
    name: Callable[[Path], str] = lambda file: file.name,
) -> list[T]:
    """Each photograph as `prepare` makes it; messages tell its `name` in `place`, the folder of the first if None.

    Raises:
        InputError: Some cannot be read, or are too large to be; they are counted and the first ones named.
        ModelError: The candidate's preprocessing raises.
    """
    from verifier.preprocessing.photographs import MOST_PIXELS, pixels  # noqa: PLC0415 - only photographs need it

    # All sizes stand in the files' first bytes; decoding a single one of these would take a minute.
    place = files[0].parent if place is None else place
    large = [f"{name(file)} ({size / 1e6:.0f})" for file in files if (size := pixels(file)) > MOST_PIXELS]
    if large:
        raise InputError(
            f"{len(large)} of {len(files)} images in {place} have more than the {MOST_PIXELS // 10**6} "
            f"megapixels that are decoded here: {listed(large)}. Scale them down, or leave them out."
        )
    made = []
    unreadable = []
    for file in files:
        try:
            made.append(prepare(file))
        except VerifierError:
            raise
        except Exception as error:  # each decoder has its own ways to fail
            strange = type(error).__name__ == "UnidentifiedImageError"
            unreadable.append(f"{name(file)} ({'not an image' if strange else reason(error)})")
    if unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(files)} images in {place} cannot be read: "
            f"{listed(unreadable)}. Mend or remove them."
        )
    return made


def _stacked(made: Sequence[Sequence[Any]], record: Preprocessing) -> torch.Tensor:
    """The candidate's tensors in one."""
    each = [as_float(one[0]) for one in made]
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in each))
    if len(shapes) > 1:
        said = f" ({record.cause.summary})" if record.cause else ""
        raise ModelError(
            f"the candidate's preprocessing {record.candidate} makes tensors of several shapes, {shapes[0]} and "
            f"{shapes[1]}, which do not go into one batch{said}."
        )
    return torch.stack(each)


def as_float(made: Any) -> torch.Tensor:
    """What a preprocessing has made, as a tensor: float32 unless it is floating-point already."""
    from verifier.preprocessing.photographs import as_array  # noqa: PLC0415 - only photographs need it

    tensor = made if isinstance(made, torch.Tensor) else torch.as_tensor(as_array(made))
    return tensor if tensor.is_floating_point() else tensor.float()


def _in_directory(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise InputError(
            f"{directory} is not a directory; --images takes a directory of photographs or 'samples'"
            if directory.exists()
            else f"the image directory {directory} does not exist"
        )
    found = sorted(
        (
            path
            for path in directory.iterdir()
            if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
        ),
        key=lambda path: path.name,
    )
    if not found:
        endings = ", ".join(sorted(EXTENSIONS))
        raise InputError(f"{directory} holds no image ({endings}); folders inside it are not searched")
    return found


def _samples() -> list[Path]:
    package = importlib.util.find_spec("skimage")
    folders = list(package.submodule_search_locations or ()) if package else []
    found = [path for folder in folders for name in SAMPLES if (path := Path(folder, "data", name)).is_file()]
    if not found:
        raise InputError(
            "the sample photographs come with scikit-image: pip install scikit-image, "
            "or give --images a directory of your own"
        )
    return found
