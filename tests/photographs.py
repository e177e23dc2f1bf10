"""Five classes of photographs to learn from, made of real ones: parts of them, mirrored, turned, in other colours.

`python -m tests.photographs FOLDER 100` makes a folder for `train --data` with 100 pictures a class.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import skimage
from PIL import Image, ImageEnhance, ImageOps

CLASSES = {
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "portrait": "astronaut.png",
    "rocket": "rocket.jpg",
}
"""Photographs in scikit-image's wheel itself, by what they show."""


def make(directory: Path, count: int, *, size: int = 256, seed: int = 0) -> Path:
    """A folder for each class in `directory`, with `count` JPEG files of `size` x `size` pixels; returns it."""
    draws = random.Random(seed)
    for name, file in CLASSES.items():
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        with Image.open(Path(skimage.__file__).parent / "data" / file) as opened:
            photograph = opened.convert("RGB")
        for number in range(count):
            changed(photograph, size, draws).save(folder / f"{number:04}.jpg", quality=90)
    return directory


def changed(photograph: Image.Image, size: int, draws: random.Random) -> Image.Image:
    """A square part of a photograph, half as large as it or more, with other light, contrast and colours."""
    side = round(min(photograph.size) * draws.uniform(0.5, 0.95))
    left, top = (draws.randint(0, whole - side) for whole in photograph.size)
    part = photograph.rotate(draws.uniform(-10, 10), Image.Resampling.BILINEAR).crop(
        (left, top, left + side, top + side)
    )
    part = part.resize((size, size), Image.Resampling.BILINEAR)
    if draws.random() < 0.5:
        part = ImageOps.mirror(part)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        part = enhance(part).enhance(draws.uniform(0.5, 1.5))
    red, green, blue = part.split()
    shifted = (
        band.point([min(255, round(v * f)) for v in range(256)])
        for band, f in (
            (red, draws.uniform(0.7, 1.3)),
            (green, draws.uniform(0.7, 1.3)),
            (blue, draws.uniform(0.7, 1.3)),
        )
    )
    return Image.merge("RGB", tuple(shifted))


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), int(sys.argv[2])))
