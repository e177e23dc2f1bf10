"""Photographs and pictures in every form that a preprocessing may have them in."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

MOST_PIXELS = 50_000_000  # of a photograph: some stages hold it as 24 bytes a pixel, and several at once


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
