"""How photographs are prepared, from scratch: a candidate like any network here, to be compared with torchvision's.

Pillow decodes files and converts to hue and back; all else is done on bytes (H, W, C) until a picture becomes a
tensor, (C, H, W) of float32, then on that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import Tensor

    Bytes = np.ndarray[Any, np.dtype[np.uint8]]
    Drawn = tuple[tuple[int, ...], float, float, float, float]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What articles and recipes for CIFAR-10 use as its standard deviation, which is that of single pictures, averaged.
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
ORIENTATION = 0x0112  # EXIF's tag for how the camera was held
DIGITS = 32 - 8 - 2  # binary digits of a weight: a product with a byte, and two more, fit into 32


class Step(NamedTuple):
    """One stage: of a picture (the first of a path) and of what was drawn for it, if it draws, it makes pictures.

    `draw` is given the picture's height and width.
    """

    name: str
    make: Callable[[Any, Any], list[Any]]
    draw: Callable[[int, int], Any] | None = None


def read(path: Path) -> Bytes:
    """A photograph as (H, W, 3) bytes, turned upright as its EXIF data say.

    Grey becomes three equal channels, transparency is dropped, 16 bits are divided by 257 and rounded, and palettes
    are looked up. Pillow decodes the file; other colour spaces (CMYK for one) are left to it too.

    Raises:
        Exception: Whatever the file's decoder raises.
    """
    with Image.open(path) as opened:
        opened.load()
        return upright(_in_colours(opened), opened.getexif().get(ORIENTATION, 1))


def _in_colours(image: Image.Image) -> Bytes:
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint32)
        return _three((2 * deep + 257) // 514)  # rounded, not cut
    if image.mode in {"RGB", "RGBA"}:
        return np.ascontiguousarray(np.asarray(image)[..., :3])
    if image.mode in {"L", "LA"}:
        grey = np.asarray(image)
        return _three(grey[..., 0] if image.mode == "LA" else grey)
    if image.mode == "P":
        colours = np.zeros((256, 3), np.uint8)
        palette = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        colours[: len(palette)] = palette
        return np.asarray(colours[np.asarray(image)])
    return np.asarray(image.convert("RGB"))


def _three(grey: np.ndarray[Any, Any]) -> Bytes:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def upright(picture: Bytes, orientation: int) -> Bytes:
    """The picture as it was seen: EXIF 2.3, section 4.6.4 A, tag Orientation; unknown values change nothing."""
    turned = {
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
        7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda p: p.transpose(1, 0, 2)[::-1],
    }.get(orientation)
    return picture if turned is None else np.ascontiguousarray(turned(picture))


def resize(picture: Bytes, height: int, width: int) -> Bytes:
    """A picture in another size, bilinear, antialiased where it shrinks: the very bytes Pillow makes.

    Every output pixel is a weighted mean of the input pixels around its centre. The definition: Pillow,
    `src/libImaging/Resample.c` (https://github.com/python-pillow/Pillow). Bytes are weighted with whole numbers of 22
    binary digits and rounded after each of the two passes, so their order shows. It was found by trial: version 13
    shrinks columns first where they lose more than twice as many pixels as the rows do.
    """
    lost, lost_across = picture.shape[0] - height, picture.shape[1] - width
    if lost > 0 and lost > 2 * lost_across:
        return np.ascontiguousarray(_across(_down(picture, height), width))
    return np.ascontiguousarray(_down(_across(picture, width), height))


def _across(picture: Bytes, width: int) -> Bytes:
    return _down(picture.transpose(1, 0, 2), width).transpose(1, 0, 2)


def _down(picture: Bytes, height: int) -> Bytes:
    """One pass: (H, W, C) to (`height`, W, C)."""
    old = picture.shape[0]
    if old == height:
        return picture
    scale = old / height
    reach = max(scale, 1.0)  # of the triangle of weights
    centres = (np.arange(height) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), old)
    rows = first[:, None] + np.arange(int((last - first).max()))
    weights = np.maximum(1 - np.abs((rows - centres[:, None] + 0.5) / reach), 0)
    weights[rows >= last[:, None]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    whole = np.trunc(weights * (1 << DIGITS) + 0.5).astype(np.int32)
    sums = np.full((height, *picture.shape[1:]), 1 << (DIGITS - 1), np.int32)
    for row, weight in zip(np.minimum(rows, old - 1).T, whole.T, strict=True):
        sums += weight[:, None, None] * picture[row]
    made: Bytes = np.clip(sums >> DIGITS, 0, 255).astype(np.uint8)
    return made


def shorter_to(picture: Bytes, size: int) -> Bytes:
    """The shorter side resized to `size` pixels; the longer is cut to whole pixels."""
    height, width = picture.shape[:2]
    if height <= width:
        return resize(picture, size, int(size * width / height))
    return resize(picture, int(size * height / width), size)


def crop(picture: Bytes, top: int, left: int, height: int, width: int) -> Bytes:
    """A window of the picture."""
    return picture[top : top + height, left : left + width]


def pad(picture: Bytes, left: int, top: int, right: int, bottom: int) -> Bytes:
    """The picture with black around it."""
    return np.pad(picture, ((top, bottom), (left, right), (0, 0)))


def centre_crop(picture: Bytes, size: int) -> Bytes:
    """The middle `size` x `size` pixels; a smaller picture is put into the middle of black first.

    Where the margin is odd, its half is rounded to the even number, as Python rounds.
    """
    height, width = picture.shape[:2]
    lacking = [max(0, size - length) for length in (width, height)]
    if any(lacking):
        across, down = lacking
        picture = pad(picture, across // 2, down // 2, (across + 1) // 2, (down + 1) // 2)
        height, width = picture.shape[:2]
    return crop(picture, round((height - size) / 2), round((width - size) / 2), size, size)


def flip(picture: Bytes) -> Bytes:
    """Left and right exchanged."""
    return picture[:, ::-1]


def ten_crops(picture: Bytes, size: int) -> list[Bytes]:
    """The four corners, top left first, row by row, and the middle; and those of the flipped picture.

    Krizhevsky et al., 2012.
    """
    down, across = picture.shape[0] - size, picture.shape[1] - size
    made: list[Bytes] = []
    for each in (picture, flip(picture)):
        made += [crop(each, top, left, size, size) for top in (0, down) for left in (0, across)]
        made.append(centre_crop(each, size))
    return made


def scale(picture: Bytes) -> Tensor:
    """Bytes (H, W, C) to float32 (C, H, W) on 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).to(torch.float32) / 255


def normalise(tensor: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std in each channel, in float32."""
    middle, spread = (torch.tensor(each, dtype=torch.float32).reshape(-1, 1, 1) for each in (mean, std))
    return (tensor - middle) / spread


def jitter(picture: Bytes, drawn: Drawn) -> Bytes:
    """Brightness, contrast, saturation and hue (in turns) changed by what was drawn: their order, their strengths."""
    order, brightness, contrast, saturation, hue = drawn
    steps = (
        lambda p: blended(np.zeros_like(p), p, brightness),
        lambda p: blended(np.full_like(p, int(grey(p).mean() + 0.5)), p, contrast),
        lambda p: blended(np.repeat(grey(p)[..., None], 3, axis=2), p, saturation),
        lambda p: turned_hue(p, hue),
    )
    for number in order:
        picture = steps[number](picture)
    return picture


def blended(ground: Bytes, picture: Bytes, share: float) -> Bytes:
    """ground + share (picture - ground) in float32; what is left of whole steps is cut off, as Pillow does."""
    below = ground.astype(np.float32)
    mixed = below + np.float32(share) * (picture.astype(np.float32) - below)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def grey(picture: Bytes) -> Bytes:
    """Luminance (H, W): ITU-R BT.601's weights in whole numbers of 16 binary digits."""
    red, green, blue = (picture[..., k].astype(np.uint32) for k in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)


def turned_hue(picture: Bytes, turns: float) -> Bytes:
    """The hue moved around its circle of 256 steps; Pillow converts to hue, saturation, value and back."""
    bands = np.array(Image.fromarray(np.ascontiguousarray(picture)).convert("HSV"))
    bands[..., 0] += np.array(int(turns * 255)).astype(np.uint8)
    return np.asarray(Image.fromarray(bands, "HSV").convert("RGB"))


def draw_window(height: int, width: int, size: int) -> tuple[int, int]:
    """Top and left of a random window: two draws, rows first; none where the window is the whole picture.

    Raises:
        ValueError: The picture is smaller than the window.
    """
    if height < size or width < size:
        raise ValueError(f"a picture of {height} x {width} pixels has no window of {size} x {size}")
    if (height, width) == (size, size):
        return 0, 0
    top = int(torch.randint(0, height - size + 1, (1,)))
    return top, int(torch.randint(0, width - size + 1, (1,)))


def draw_flip() -> bool:
    """Heads or tails."""
    return bool(torch.rand(1) < 0.5)


def draw_size(height: int, width: int, least: int, most: int) -> tuple[int, int]:
    """A new size whose shorter side is drawn from a range, both ends included.

    torchvision multiplies both sides by a rounded ratio and cuts: in 5 % of all cases a pixel is missing.
    """
    ratio = (least + int(torch.randint(most - least + 1, ()))) / min(height, width)
    return int(height * ratio), int(width * ratio)


def draw_jitter(strength: Sequence[float]) -> Drawn:
    """The order first, then a strength of each step: 1 - s to 1 + s, the hue from -s to s."""
    order = tuple(torch.randperm(4).tolist())
    bounds = [(max(0.0, 1 - s), 1 + s) for s in strength[:3]] + [(-strength[3], strength[3])]
    brightness, contrast, saturation, hue = (float(torch.empty(1).uniform_(*each)) for each in bounds)
    return order, brightness, contrast, saturation, hue


DECODE = Step("decode", lambda path, _: [read(path)])
FLIP = Step("flip", lambda p, drawn: [flip(p) if drawn else p], lambda _height, _width: draw_flip())
JITTER = Step(
    "jitter", lambda p, drawn: [jitter(p, drawn)], lambda _height, _width: draw_jitter((0.4, 0.4, 0.4, 0.1))
)
SCALE = Step("scale", lambda p, _: [scale(p)])
NORMALISE = Step("normalise", lambda p, _: [normalise(p, *IMAGENET)])


def _resize_to(*sizes: int) -> Step:
    return Step("resize", lambda p, _: [shorter_to(p, size) for size in sizes])


def _random_crop(size: int) -> Step:
    return Step(
        "crop", lambda p, at: [crop(p, at[0], at[1], size, size)], lambda h, w: draw_window(h, w, size)
    )


def _eight_sevenths(size: int) -> int:
    return math.floor(size * 256 / 224 + 0.5)


def classification(size: int) -> tuple[Step, ...]:
    """As weights for classification are tested: the shorter side to 8/7 of the crop, then its centre."""
    cut = Step("crop", lambda p, _: [centre_crop(p, size)])
    return DECODE, _resize_to(_eight_sevenths(size)), cut, SCALE, NORMALISE


def imagenet_train(size: int) -> tuple[Step, ...]:
    """The residual networks' training: He et al., 2015, section 3.4."""
    shrunk = Step("resize", lambda p, to: [resize(p, *to)], lambda h, w: draw_size(h, w, 256, 480))
    return DECODE, shrunk, _random_crop(size), FLIP, JITTER, SCALE, NORMALISE


def cifar_train(size: int) -> tuple[Step, ...]:
    """Its section 4.2: four black pixels on each side, a random window, flips."""
    padded = Step("pad", lambda p, _: [pad(p, 4, 4, 4, 4)])
    normal = Step("normalise", lambda p, _: [normalise(p, *CIFAR10)])
    return DECODE, padded, _random_crop(size), FLIP, SCALE, normal


def ten_crop(size: int) -> tuple[Step, ...]:
    """As for classification, but ten crops."""
    return (
        DECODE,
        _resize_to(_eight_sevenths(size)),
        Step("crop", lambda p, _: list(ten_crops(p, size))),
        SCALE,
        NORMALISE,
    )


def multi_scale(_size: int) -> tuple[Step, ...]:
    """Shorter sides the residual networks' paper tests on, nothing cropped."""
    return DECODE, _resize_to(224, 256, 384, 480, 640), SCALE, NORMALISE


RECIPES: dict[str, Callable[[int], tuple[Step, ...]]] = {
    "cifar-train": cifar_train,
    "classification": classification,
    "imagenet-train": imagenet_train,
    "multi-scale": multi_scale,
    "ten-crop": ten_crop,
}
