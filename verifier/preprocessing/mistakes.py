"""Usual mistakes in preparing a photograph, made on purpose."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from verifier.preprocessing.photographs import as_array, as_image, in_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Variant(NamedTuple):
    """A mistake: its code, what it does in words, how to mend it, and the mistake itself."""

    code: str
    words: str
    remedy: str
    make: Callable[[Any], Any]


def _interpolated(picture: Any, height: int, width: int, mode: str, *, corners: bool | None = None) -> Any:
    """torch's interpolation of a tensor, without antialiasing, rounded to bytes."""
    tensor = torch.from_numpy(np.ascontiguousarray(in_steps(picture).transpose(2, 0, 1)))[None]
    made = torch.nn.functional.interpolate(tensor, size=(height, width), mode=mode, align_corners=corners)
    return made[0].round().clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)


def _pillow(picture: Any, height: int, width: int, kernel: Image.Resampling) -> Any:
    image = as_image(picture)
    if isinstance(image, torch.Tensor):
        image = Image.fromarray(np.clip(np.round(in_steps(picture)), 0, 255).astype(np.uint8))
    return image.resize((width, height), kernel)


def kernels(height: int, width: int) -> list[Variant]:
    """Ways to resize to one size; the first is the baseline's."""
    mend = "use bilinear interpolation with antialias=True"

    def pillow(name: str, kernel: Image.Resampling) -> Variant:
        return Variant("resize-kernel", f"it is {name}", mend, lambda p: _pillow(p, height, width, kernel))

    return [
        pillow("bilinear", Image.Resampling.BILINEAR),
        Variant(
            "resize-antialias",
            "it is not antialiased: antialias is off",
            mend,
            lambda p: _interpolated(p, height, width, "bilinear", corners=False),
        ),
        Variant(
            "resize-grid",
            "its grid spans the corner pixels: align_corners is on, and it is not antialiased",
            "leave align_corners off and set antialias=True",
            lambda p: _interpolated(p, height, width, "bilinear", corners=True),
        ),
        pillow("bicubic, not bilinear", Image.Resampling.BICUBIC),
        pillow("nearest neighbour, not bilinear", Image.Resampling.NEAREST),
        pillow("Lanczos, not bilinear", Image.Resampling.LANCZOS),
        pillow("box, not bilinear", Image.Resampling.BOX),
        pillow("Hamming, not bilinear", Image.Resampling.HAMMING),
        Variant(
            "resize-kernel",
            "it is bicubic without antialiasing, not bilinear",
            mend,
            lambda p: _interpolated(p, height, width, "bicubic", corners=False),
        ),
        Variant(
            "resize-kernel",
            "it is nearest neighbour as torch does it, not bilinear",
            mend,
            lambda p: _interpolated(p, height, width, "nearest"),
        ),
    ]


def decoders(path: Path) -> list[Variant]:
    """Ways to read a file that differ from the baseline's."""

    def opened(change: Callable[[Image.Image], Image.Image]) -> Callable[[Any], Any]:
        def make(_: Any) -> Any:
            with Image.open(path) as image:
                return change(image)

        return make

    def over(colour: str) -> Callable[[Image.Image], Image.Image]:
        def composed(image: Image.Image) -> Image.Image:
            ground = Image.new("RGBA", image.size, colour)
            return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")

        return composed

    def cut(image: Image.Image) -> Image.Image:
        deep = np.asarray(image)
        return Image.fromarray((deep >> 8).astype(np.uint8) if deep.dtype == np.uint16 else deep).convert(
            "RGB"
        )

    return [
        Variant(
            "decode-orientation",
            "it is not turned as its EXIF data say",
            "turn it first, with PIL.ImageOps.exif_transpose",
            opened(lambda image: image.convert("RGB")),
        ),
        Variant("decode-depth", "of 16 bits the lower 8 are cut off", "divide by 257 and round", opened(cut)),
        Variant("decode-alpha", "it is laid over white", "drop the transparency", opened(over("white"))),
        Variant("decode-alpha", "it is laid over black", "drop the transparency", opened(over("black"))),
    ]


def normalised(picture: Any) -> torch.Tensor:
    """A picture as the recipe's last two stages make it of bytes, (1, C, H, W)."""
    from verifier.preprocessing.recipes import IMAGENETS, SCALE  # noqa: PLC0415 - recipes know this room's rules

    image = as_image(picture)
    normal: torch.Tensor = IMAGENETS.torchvision(SCALE.torchvision(image, None)[0], None)[0]
    return normal[None]


def in_the_whole(path: Path, decoded: Any, size: int, shorter: int) -> Iterator[Variant]:
    """Single mistakes in the geometry of the classification recipe, the faultless one first."""
    from verifier.preprocessing.recipes import crop_centre, resize_to  # noqa: PLC0415 - as above

    def resized(picture: Any, to: int = shorter) -> Any:
        return resize_to(to).torchvision(as_image(picture), None)[0]

    def centred(picture: Any) -> Any:
        return crop_centre(size).torchvision(as_image(picture), None)[0]

    def shifted(down: int, across: int) -> Callable[[Any], Any]:
        def make(picture: Any) -> Any:
            whole = as_array(resized(picture))
            top, left = (round((length - size) / 2) for length in whole.shape[:2])
            return whole[top + down : top + down + size, left + across : left + across + size]

        return make

    yield Variant("", "", "", lambda p: centred(resized(p)))
    height, width = as_array(resized(decoded)).shape[:2]
    for each in kernels(height, width)[1:]:
        yield each._replace(words=f"in resizing, {each.words}", make=_one_after_the_other(each.make, centred))
    for down, across in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)):
        yield Variant(
            "crop-offset",
            f"the crop begins elsewhere, by {(down, across)} rows and columns",
            "round half of the margin as torchvision does: round(margin / 2), to even",
            shifted(down, across),
        )
    corner = "the crop is the top left corner, not the centre"
    yield Variant("crop-offset", corner, "crop the centre", lambda p: as_array(resized(p))[:size, :size])
    mend = f"resize the shorter side to {shorter}, then crop {size} x {size}"
    yield Variant("crop-size", "nothing is cropped", mend, resized)

    def squeezed(down: int, across: int) -> Callable[[Any], Any]:
        return lambda p: _pillow(p, down, across, Image.Resampling.BILINEAR)

    source = as_array(decoded).shape[:2]
    small = [max(1, int(shorter * length / max(source))) for length in source]
    sides = "whatever the proportions"
    for words, make in (
        (f"both sides are resized to {shorter}, {sides}, and nothing is cropped", squeezed(shorter, shorter)),
        (f"both sides are resized to {size}, {sides}, and nothing is cropped", squeezed(size, size)),
        (
            f"both sides are resized to {shorter}, {sides}",
            _one_after_the_other(squeezed(shorter, shorter), centred),
        ),
        (f"the shorter side becomes {size}", lambda p: centred(resized(p, size))),
        (
            f"the longer side becomes {shorter}, not the shorter",
            _one_after_the_other(squeezed(*small), centred),
        ),
    ):
        yield Variant("resize-size", words, mend, make)
    for each in decoders(path):
        yield each._replace(
            words=f"in decoding, {each.words}", make=_one_after_the_other(each.make, resized, centred)
        )
    for other in range(size, 2 * shorter, 8):
        if other not in (size, shorter):
            yield Variant(
                "resize-size",
                f"the shorter side becomes {other}",
                mend,
                _one_after_the_other(functools.partial(resized, to=other), centred),
            )


def _one_after_the_other(*steps: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda picture: functools.reduce(lambda current, step: step(current), steps, picture)
