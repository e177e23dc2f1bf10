"""Small pictures: planes of numbers as PNG in a data address, bars as a path."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from reports import wording

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import Plane

# Anchors of cividis (Nuñez, Anderton and Renslow 2018) and of ColorBrewer's RdBu: told apart with any colour vision.
_SEQUENCE = ((0, 34, 78), (64, 77, 108), (124, 123, 120), (187, 174, 108), (254, 232, 56))
_DIVERGING = ((5, 48, 97), (67, 147, 195), (247, 247, 247), (214, 96, 77), (103, 0, 31))
_NOT_FINITE = (230, 0, 230)
_LARGEST = 1 << 20  # elements: a record that asks for more was not made by this package


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with what it shows, the smallest and the largest number in it, and its address (`data:`)."""

    caption: str
    alt: str
    scale: str
    address: str
    wide: bool


def picture(plane: Plane | None, caption: str, *, diverging: bool = False) -> Picture | None:
    """The plane in colours; None where there is none or the record holds other than it says."""
    if plane is None or not 0 < plane.rows * plane.columns <= _LARGEST or min(plane.rows, plane.columns) < 1:
        return None
    try:
        values = base64.b64decode(plane.values, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(values) != plane.rows * plane.columns:
        return None
    image = Image.frombytes("P", (plane.columns, plane.rows), values)
    image.putpalette(_palette(_DIVERGING if diverging else _SEQUENCE))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    address = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
    scale = f"{wording.figure(plane.low)} to {wording.figure(plane.high)}"
    alt = f"{caption}, {plane.rows} by {plane.columns}, from {scale}"
    return Picture(caption, alt, scale, address, wide=plane.columns >= 4 * plane.rows)


def _palette(anchors: Sequence[tuple[int, int, int]]) -> list[int]:
    colours: list[int] = []
    steps = len(anchors) - 1
    for value in range(255):
        step, part = divmod(value * steps, 254)
        one, other = anchors[step], anchors[min(step + 1, steps)]
        colours += [round(a + (b - a) * part / 254) for a, b in zip(one, other, strict=True)]
    return [*colours, *_NOT_FINITE]


def bars(heights: Sequence[float], width: int, height: int) -> str:
    """Bars side by side as the data of an SVG path, from heights in 0..1; what is there but small shows a little."""
    count = len(heights)
    edges = [round(k * width / max(1, count), 1) for k in range(count + 1)]
    parts = []
    for k, share in enumerate(heights):
        tall = min(1.0, max(0.0, share)) * height
        if share > 0:
            tall = max(1.0, tall)
        if tall:
            gap = 1 if width / count > 3 else 0
            parts.append(f"M{edges[k]:g} {height}v-{tall:.1f}H{edges[k + 1] - gap:g}V{height}z")
    return "".join(parts)
