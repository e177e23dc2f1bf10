"""Recipes: the stages a photograph goes through, each as torchvision does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from verifier.errors import UsageError, suggestion
from verifier.preprocessing import resampling
from verifier.recognise.preparations import IMAGENET

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

# What articles and recipes for CIFAR-10 use as its standard deviation, which is that of single pictures, averaged.
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
SHORT_SIDE = (256, 480)  # Simonyan and Zisserman, 2014; the residual networks' paper takes it over
SCALES = (224, 256, 384, 480, 640)  # shorter sides the paper tests on
JITTER = (0.4, 0.4, 0.4, 0.1)  # brightness, contrast, saturation, hue


@dataclass(frozen=True)
class Stage:
    """One step, for one picture, that makes one or several.

    `torchvision` is given a picture (Pillow's, or a tensor) and what was drawn, if there is `draw`, which is given
    its height and width. `rule` says what may differ (`verifier.preprocessing.rules`).
    """

    name: str
    words: str
    rule: str
    torchvision: Callable[[Any, Any], list[Any]]
    draw: Callable[[int, int], Any] | None = None


@dataclass(frozen=True)
class PhotographRecipe:
    """Stages in order. The first is given a path."""

    name: str
    stages: tuple[Stage, ...]
    size: int


def read_with_pillow(path: Path) -> Image.Image:
    """As torchvision's datasets load pictures, but turned upright, and with all of 16 bits."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):
            # Pillow's own conversion clips all but the darkest 256 values to white, and cuts where it divides.
            image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
        return image.convert("RGB")


def _functional() -> Any:
    from torchvision.transforms import functional  # noqa: PLC0415 - half a second

    return functional


DECODE = Stage(
    "decode", "upright, 8 bits of red, green and blue", "decode", lambda path, _: [read_with_pillow(path)]
)


def _torchvision_resize(picture: Any, size: int | list[int]) -> Any:
    functional = _functional()
    to = [size] if isinstance(size, int) else size
    return functional.resize(picture, to, functional.InterpolationMode.BILINEAR, antialias=True)


def resize_to(size: int) -> Stage:
    """The shorter side to `size`."""
    return Stage(
        "resize",
        f"shorter side {size}, bilinear, antialiased",
        "resize",
        lambda p, _: [_torchvision_resize(p, size)],
    )


def crop_centre(size: int) -> Stage:
    """The middle."""
    return Stage(
        "crop", f"centre {size} x {size}", "exact", lambda p, _: [_functional().center_crop(p, [size])]
    )


def _torchvision_scale(picture: Any, _: Any) -> list[Any]:
    import torch  # noqa: PLC0415 - for the name of a dtype

    functional = _functional()
    if isinstance(picture, torch.Tensor):
        return [picture / 255]
    return [functional.convert_image_dtype(functional.pil_to_tensor(picture), torch.float32)]


SCALE = Stage("scale", "0 to 1, float32", "float32", _torchvision_scale)


def normalise_by(constants: tuple[Sequence[float], Sequence[float]], name: str) -> Stage:
    """Less the mean, over the standard deviation."""
    return Stage(
        "normalise",
        f"{name}'s mean and standard deviation",
        "normalise",
        lambda p, _: [_functional().normalize(p, *constants)],
    )


def _random_size() -> Stage:
    least, most = SHORT_SIDE

    def draw(height: int, width: int) -> tuple[int, int]:
        from torchvision.transforms import v2  # noqa: PLC0415 - half a second

        stage = v2.RandomShortestSize(list(range(least, most + 1)), antialias=True)
        new: tuple[int, int] = stage.make_params([Image.new("RGB", (width, height))])["size"]
        return new

    return Stage(
        "resize",
        f"shorter side drawn from {least} to {most}, bilinear, antialiased",
        "resize",
        lambda p, size: [_torchvision_resize(p, list(size))],
        draw,
    )


def _random_crop(size: int) -> Stage:
    def draw(height: int, width: int) -> tuple[int, int]:
        from torchvision.transforms import RandomCrop  # noqa: PLC0415 - half a second

        top, left, _, _ = RandomCrop.get_params(Image.new("L", (width, height)), (size, size))
        return top, left

    return Stage(
        "crop",
        f"random {size} x {size}",
        "exact",
        lambda p, at: [_functional().crop(p, at[0], at[1], size, size)],
        draw,
    )


def _pad(pixels: int) -> Stage:
    return Stage(
        "pad",
        f"{pixels} black pixels on each side",
        "exact",
        lambda p, _: [_functional().pad(p, [pixels] * 4)],
    )


def _draw_flip(_height: int, _width: int) -> bool:
    import torch  # noqa: PLC0415 - for the draw

    # what RandomHorizontalFlip does; it has no function of its own for it
    return bool(torch.rand(1) < 0.5)


FLIP = Stage(
    "flip",
    "left to right, every other time",
    "exact",
    lambda p, flipped: [_functional().hflip(p) if flipped else p],
    _draw_flip,
)


def _draw_jitter(_height: int, _width: int) -> tuple[Any, ...]:
    from torchvision.transforms import ColorJitter  # noqa: PLC0415 - half a second

    chosen = ColorJitter(*JITTER)
    order, *strengths = chosen.get_params(chosen.brightness, chosen.contrast, chosen.saturation, chosen.hue)
    return tuple(order.tolist()), *strengths


def _torchvision_jitter(picture: Any, drawn: tuple[Any, ...]) -> list[Any]:
    functional = _functional()
    steps = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    for number in drawn[0]:
        picture = steps[number](picture, drawn[1 + number])
    return [picture]


COLOURS = Stage(
    "jitter",
    "brightness, contrast and saturation by up to 40 %, hue by up to a tenth",
    "jitter",
    _torchvision_jitter,
    _draw_jitter,
)


def _ten_crops(size: int) -> Stage:
    return Stage(
        "crop",
        f"ten of {size} x {size}: corners and centre, and flipped",
        "exact",
        lambda p, _: list(_functional().ten_crop(p, [size, size])),
    )


def _many_scales() -> Stage:
    return Stage(
        "resize",
        f"shorter sides {', '.join(map(str, SCALES))}, bilinear, antialiased",
        "resize",
        lambda p, _: [_torchvision_resize(p, size) for size in SCALES],
    )


def classification(size: int) -> PhotographRecipe:
    """What torchvision's classification weights are tested with."""
    stages = (DECODE, resize_to(resampling.whole_steps(size)), crop_centre(size), SCALE, IMAGENETS)
    return PhotographRecipe("classification", stages, size)


IMAGENETS = normalise_by(IMAGENET, "ImageNet")


def _training(size: int) -> PhotographRecipe:
    stages = (DECODE, _random_size(), _random_crop(size), FLIP, COLOURS, SCALE, IMAGENETS)
    return PhotographRecipe("imagenet-train", stages, size)


def _cifar_training(size: int) -> PhotographRecipe:
    stages = (DECODE, _pad(4), _random_crop(size), FLIP, SCALE, normalise_by(CIFAR10, "CIFAR-10"))
    return PhotographRecipe("cifar-train", stages, size)


def _ten(size: int) -> PhotographRecipe:
    stages = (DECODE, resize_to(resampling.whole_steps(size)), _ten_crops(size), SCALE, IMAGENETS)
    return PhotographRecipe("ten-crop", stages, size)


def _multi_scale(size: int) -> PhotographRecipe:
    return PhotographRecipe("multi-scale", (DECODE, _many_scales(), SCALE, IMAGENETS), size)


RECIPES: dict[str, tuple[Callable[[int], PhotographRecipe], int]] = {
    "cifar-train": (_cifar_training, 32),
    "classification": (classification, 224),
    "imagenet-train": (_training, 224),
    "multi-scale": (_multi_scale, 224),
    "ten-crop": (_ten, 224),
}


def recipe(name: str, size: int | None = None) -> PhotographRecipe:
    """A recipe by name, for crops of `size` pixels or as many as are usual.

    Raises:
        UsageError: There is none of that name.
    """
    if name not in RECIPES:
        raise UsageError(
            f"there is no recipe {name!r}{suggestion(name, RECIPES) or '.'} Known are {', '.join(RECIPES)}."
        )
    build, usual = RECIPES[name]
    return build(size or usual)
