"""Our own transforms: on bytes (H, W, C) until a picture becomes a tensor, (C, H, W) of float32, then on that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.preprocessing.resampling import Bytes


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


def five_crops(picture: Bytes, size: int) -> list[Bytes]:
    """The four corners, top left first, row by row, and the middle."""
    down, across = picture.shape[0] - size, picture.shape[1] - size
    corners = [crop(picture, top, left, size, size) for top in (0, down) for left in (0, across)]
    return [*corners, centre_crop(picture, size)]


def ten_crops(picture: Bytes, size: int) -> list[Bytes]:
    """Five crops, and those of the flipped picture (Krizhevsky et al., 2012)."""
    return [*five_crops(picture, size), *five_crops(flip(picture), size)]


def scale(picture: Bytes) -> Tensor:
    """Bytes (H, W, C) to float32 (C, H, W) on 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).to(torch.float32) / 255


def normalise(tensor: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std in each channel, in float32."""
    middle, spread = (torch.tensor(each, dtype=torch.float32).reshape(-1, 1, 1) for each in (mean, std))
    return (tensor - middle) / spread


class Jitter(NamedTuple):
    """What a colour jitter drew: the order of its four steps, and their strengths (hue in turns)."""

    order: tuple[int, ...]
    brightness: float
    contrast: float
    saturation: float
    hue: float


def jitter(picture: Bytes, drawn: Jitter) -> Bytes:
    """Brightness, contrast, saturation and hue changed in the order that was drawn."""
    steps = (
        lambda p: blended(np.zeros_like(p), p, drawn.brightness),
        lambda p: blended(np.full_like(p, int(grey(p).mean() + 0.5)), p, drawn.contrast),
        lambda p: blended(np.repeat(grey(p)[..., None], 3, axis=2), p, drawn.saturation),
        lambda p: turned_hue(p, drawn.hue),
    )
    for number in drawn.order:
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


def draw_size(least: int, most: int) -> int:
    """A length in pixels, both ends included."""
    return least + int(torch.randint(most - least + 1, ()))


def draw_jitter(strength: Sequence[float]) -> Jitter:
    """The order first, then a strength of each step: 1 - s to 1 + s, the hue from -s to s."""
    order = tuple(torch.randperm(4).tolist())
    brightness, contrast, saturation = (
        float(torch.empty(1).uniform_(max(0.0, 1 - s), 1 + s)) for s in strength[:3]
    )
    return Jitter(
        order, brightness, contrast, saturation, float(torch.empty(1).uniform_(-strength[3], strength[3]))
    )
