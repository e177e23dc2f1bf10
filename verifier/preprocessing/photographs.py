"""Reading photographs: upright, and as bytes of red, green and blue."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.preprocessing.resampling import Bytes

MOST_PIXELS = 50_000_000  # of a photograph: some stages hold it as 24 bytes a pixel, and several at once

ORIENTATION = 0x0112  # EXIF's tag for how the camera was held


def pixels(path: Path) -> int:
    """How many pixels a photograph has, as its first bytes say; 0 where they cannot be understood."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are refused anyway
            with Image.open(path) as opened:
                return opened.width * opened.height
    except Image.DecompressionBombError as error:
        return next((int(number) for number in re.findall(r"\d+", str(error))), 0)
    except Exception:  # each decoder has its own ways to fail; whoever decodes it tells
        return 0


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


def as_array(picture: object) -> np.ndarray[Any, Any]:
    """A picture in any form (Pillow's, array, tensor; channels first or last) as an array (H, W, C).

    Raises:
        TypeError: It is no picture.
    """
    if isinstance(picture, Image.Image):
        array = np.asarray(picture)
    elif isinstance(picture, torch.Tensor):
        array = (
            picture.detach()
            .cpu()
            .to(torch.float32 if picture.dtype is torch.bfloat16 else picture.dtype)
            .numpy()
        )
        if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
            array = array.transpose(1, 2, 0)
    elif isinstance(picture, np.ndarray):
        array = picture
    else:
        raise TypeError(f"a {type(picture).__name__} is no picture")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise TypeError(f"an array of shape {array.shape} is no picture")
    return array


def in_steps(picture: object) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A picture on a scale of 0 to 255, float64; floating-point numbers are taken for 0 to 1 if none is above 1."""
    array = as_array(picture)
    numbers = array.astype(np.float64)
    if array.dtype.kind == "f" and (not numbers.size or float(np.abs(numbers).max()) <= 1 + 1e-3):
        numbers = numbers * 255
    return numbers


def as_image(picture: object) -> Image.Image | torch.Tensor:
    """A picture for torchvision: Pillow's where all its values are whole steps, else a float32 tensor on 0 to 255."""
    if isinstance(picture, Image.Image):
        return picture
    array = as_array(picture)
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    steps = in_steps(picture)
    whole = np.round(steps)
    if (
        float(np.abs(steps - whole).max(initial=0)) < 1e-3
        and whole.min(initial=0) >= 0
        and whole.max(initial=0) <= 255
    ):
        return Image.fromarray(whole.astype(np.uint8))
    return torch.from_numpy(np.ascontiguousarray(steps.transpose(2, 0, 1)).astype(np.float32))
