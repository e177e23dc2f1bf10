"""Readings of ONNX's operators that take images between their pixels: resized, warped, cut out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from verifier.forms.calls import Call, Readings, Value, as_tensor, at, numbers
from verifier.forms.onnx.node import OnnxNode

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLING = Readings[OnnxNode]()


@SAMPLING.of("Resize", "Upsample")
def _resize(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, mode = as_tensor(given[0]), node.get("mode", "nearest")
    old = node.op == "Upsample" or node.opset < 11
    scales, sizes = (at(given, 1), None) if old else (at(given, 2), at(given, 3))
    how = node.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    if (
        x.dim() != 4
        or node.get("antialias", 0)
        or node.get("axes")
        or node.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        return None
    if isinstance(sizes, np.ndarray) and sizes.size:
        size = numbers(sizes)
    elif isinstance(scales, np.ndarray) and scales.size:
        size = [math.floor(n * s + 1e-9) for n, s in zip(x.shape, numbers(scales), strict=True)]
        if any(n * s != m for n, s, m in zip(x.shape, numbers(scales), size, strict=True)):
            return None  # the scale itself is used, not that of the sizes
    else:
        return None
    if size[:2] != list(x.shape[:2]):
        return None
    if mode == "nearest":
        to = node.get("nearest_mode", "floor" if old else "round_prefer_floor")
        whole = all(m % n == 0 for n, m in zip(x.shape, size, strict=True))
        middle = how in ("half_pixel", "pytorch_half_pixel") and to.startswith("round") and whole
        if middle or (how == "asymmetric" and to == "floor" and (whole or not old)):
            return Call("interpolate", F.interpolate, [x], {"size": tuple(size[2:]), "mode": "nearest"})
        return None
    corners = how == "align_corners"
    if mode == "cubic" and (node.get("cubic_coeff_a", -0.75) != -0.75 or node.get("exclude_outside", 0)):
        return None
    if not corners and how not in ("half_pixel", "pytorch_half_pixel"):
        return None
    if how == "pytorch_half_pixel" and 1 in size[2:]:
        return None
    settings = {
        "size": tuple(size[2:]),
        "mode": {"linear": "bilinear", "cubic": "bicubic"}[mode],
        "align_corners": corners,
    }
    return Call("interpolate", F.interpolate, [x], settings)


_MODES = {
    "bilinear": "bilinear",
    "linear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "cubic": "bicubic",
}
_PIXELS = 4  # dimensions of a batch of images


@SAMPLING.of("GridSample")
def _grid_sample(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    x, mode = as_tensor(given[0]), _MODES.get(node.get("mode", "bilinear"))
    if mode is None or x.dim() not in (_PIXELS, _PIXELS + 1) or (mode == "bicubic" and x.dim() > _PIXELS):
        return None
    settings = {
        "mode": mode,
        "padding_mode": node.get("padding_mode", "zeros"),
        "align_corners": bool(node.get("align_corners", 0)),
    }
    return Call("grid_sample", F.grid_sample, [x, as_tensor(given[1])], settings)


@SAMPLING.of("AffineGrid")
def _affine_grid(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    if not isinstance(given[1], np.ndarray):
        return None
    corners = bool(node.get("align_corners", 0))
    return Call(
        "affine_grid", F.affine_grid, [as_tensor(given[0]), numbers(given[1])], {"align_corners": corners}
    )


_ALIGNED = 16  # from this opset on half a pixel is taken off unless told otherwise


@SAMPLING.of("RoiAlign")
def _roi_align(node: OnnxNode, given: Sequence[Value]) -> Call | None:
    usual = "half_pixel" if node.opset >= _ALIGNED else "output_half_pixel"
    if node.get("mode", "avg") != "avg":
        return None
    settings = {
        "spatial_scale": node.get("spatial_scale", 1.0),
        "pooled_height": node.get("output_height", 1),
        "pooled_width": node.get("output_width", 1),
        "sampling_ratio": node.get("sampling_ratio", 0),
        "aligned": node.get("coordinate_transformation_mode", usual) == "half_pixel",
    }
    return Call("roi_align", _regions, [as_tensor(value) for value in given], settings)


def _regions(
    input: Tensor,  # noqa: A002
    rois: Tensor,
    batch_indices: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """As torchvision has it, which keeps the number of the image beside the corners of a region."""
    import torchvision.ops  # noqa: PLC0415 - registers the operator, which takes a second

    corners = torch.cat([batch_indices[:, None].to(rois.dtype), rois], dim=1)
    size = pooled_height, pooled_width
    made: Tensor = torchvision.ops.roi_align(input, corners, size, spatial_scale, sampling_ratio, aligned)
    return made
