"""Why a stage makes something else: usual mistakes are made on purpose, and what gives the same is the cause."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from verifier.preprocessing.mistakes import decoders, in_the_whole, kernels, normalised
from verifier.preprocessing.photographs import as_array, in_steps
from verifier.recognise.prepared_inputs import recognise
from verifier.records import Cause

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from verifier.preprocessing.mistakes import Variant

SAME = 0.6  # steps, root mean square: rounding twice and once
VALUES = (
    "input-channel-order",
    "input-scale",
    "input-normalisation",
    "input-layout",
    "input-flip",
    "input-dtype",
)


def why_resized(given: Any, made: Any, expected: Any) -> Cause | None:
    """Another size, another kernel, or both."""
    size, wanted, source = (as_array(each).shape[:2] for each in (made, expected, given))
    clauses = []
    if size != wanted:
        clauses.append(_other_size(size, wanted, source))
    scored = [(_rms(in_steps(each.make(given)) - in_steps(made)), each) for each in kernels(*size)]
    score, best = min(scored, key=lambda pair: pair[0])
    confirmed = score <= SAME
    remedy = f"resize the shorter side to {min(wanted)}" if clauses else ""
    code = "resize-size" if clauses else ""
    if confirmed and best is not scored[0][1]:
        clauses.append(best.words)
        code, remedy = code or best.code, remedy or best.remedy
    if not clauses:
        return None
    evidence = (
        (f"made so on purpose, it is off by {score:.2g} steps in the root mean square",) if confirmed else ()
    )
    return Cause(code=code, summary="; ".join(clauses), confirmed=confirmed, evidence=evidence, remedy=remedy)


def _other_size(size: tuple[int, ...], wanted: tuple[int, ...], source: tuple[int, ...]) -> str:
    told = f"{size[0]} x {size[1]} pixels, torchvision's {wanted[0]} x {wanted[1]}"
    if size[0] == size[1] and source[0] != source[1]:
        return f"both sides become {size[0]}, whatever the proportions: {told}"
    if max(size) == min(wanted) and abs(size[0] * source[1] - size[1] * source[0]) < max(source):
        return f"the longer side becomes {max(size)}, not the shorter: {told}"
    if min(size) == min(wanted) and max(size) - max(wanted) in (1, -1):
        return f"the longer side is rounded otherwise: {told}"
    if abs(size[0] * source[1] - size[1] * source[0]) < max(source):
        return f"the shorter side becomes {min(size)}, not {min(wanted)}: {told}"
    return f"it makes {told}"


def why_cropped(given: Any, made: Any, expected: Any) -> Cause | None:
    """Another window of the same picture, or the same mirrored."""
    source, cut, wanted = (as_array(each) for each in (given, made, expected))
    expected_at = window(source, wanted)
    for turned, words in ((cut, ""), (cut[:, ::-1], ", mirrored")):
        at = window(source, turned)
        if at is None:
            continue
        size = "" if cut.shape == wanted.shape else f" of {cut.shape[0]} x {cut.shape[1]} pixels"
        baseline = "" if expected_at is None else f", torchvision's at {expected_at}"
        summary = f"its window{size} begins at {at}{baseline}{words}"
        near = expected_at is not None and max(abs(at[0] - expected_at[0]), abs(at[1] - expected_at[1])) == 1
        remedy = "round half of the margin as torchvision does: round(margin / 2), to even" if near else ""
        return Cause(
            code="crop-size" if size else ("crop-offset" if not words else "input-flip"),
            summary=summary,
            confirmed=True,
            evidence=("the photograph holds exactly these pixels there",),
            remedy=remedy,
        )
    return None


def window(source: np.ndarray[Any, Any], cut: np.ndarray[Any, Any]) -> tuple[int, int] | None:
    """Row and column at which a picture (H, W, C) holds exactly these pixels, or None."""
    down, across = source.shape[0] - cut.shape[0], source.shape[1] - cut.shape[1]
    if down < 0 or across < 0 or not cut.size or source.shape[2] != cut.shape[2]:
        return None
    first = source[: down + 1, : across + 1]
    alike = first[..., 0] == cut[0, 0, 0]
    for channel in range(1, cut.shape[2]):
        alike &= first[..., channel] == cut[0, 0, channel]
    places = np.argwhere(alike)
    for y, x in ((-1, -1), (0, -1), (-1, 0), (cut.shape[0] // 2, cut.shape[1] // 2)):
        row, column = y % cut.shape[0], x % cut.shape[1]
        places = places[(source[places[:, 0] + row, places[:, 1] + column] == cut[y, x]).all(axis=1)]
    for row, column in places:
        if np.array_equal(source[row : row + cut.shape[0], column : column + cut.shape[1]], cut):
            return int(row), int(column)
    return None


def why_decoded(path: Path, made: Any, expected: Any) -> Cause | None:
    """Another orientation, other colours, or another decoder."""
    for each in decoders(path):
        try:
            mistaken = as_array(each.make(None))
        except (OSError, ValueError, TypeError):
            continue
        if mistaken.shape == as_array(made).shape and np.array_equal(mistaken, in_steps(made)):
            return _confirmed(each)
    known = why_values(made, expected)
    if known is not None:
        return known
    c, b = in_steps(made), in_steps(expected)
    if c.shape == b.shape and path.suffix.lower() in {".jpg", ".jpeg", ".webp"}:
        gap = np.abs(c - b)
        if float(np.median(gap)) <= 8:
            return Cause(
                code="decode-lossy",
                summary=f"the file is decoded otherwise, by up to {gap.max():.0f} steps: another decoder or setting",
                confirmed=False,
                remedy="decode it with Pillow, at full size and quality",
            )
    return None


def _confirmed(each: Variant) -> Cause:
    return Cause(
        code=each.code,
        summary=each.words,
        confirmed=True,
        evidence=("made so on purpose, it is the same",),
        remedy=each.remedy,
    )


def why_values(made: Any, expected: Any) -> Cause | None:
    """Channels in another order, another scale or normalisation, another layout; what `recognise` knows."""
    candidate, baseline = _tensor(made), _tensor(expected)
    if isinstance(made, torch.Tensor | np.ndarray) and tuple(made.shape) == tuple(as_array(expected).shape):
        candidate = torch.as_tensor(np.ascontiguousarray(made))[None]
    found = recognise(candidate, baseline)
    if found is None or found.code not in VALUES:
        return None
    confirmed = found.undo is not None and _left(found.undo(candidate), baseline) <= SAME
    return Cause(code=found.code, summary=f"it {found.summary}", confirmed=confirmed, evidence=found.evidence)


def _tensor(picture: Any) -> torch.Tensor:
    """One sample, (1, C, H, W)."""
    array = as_array(picture)
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]


def _left(candidate: torch.Tensor, baseline: torch.Tensor) -> float:
    """The root mean square of what is left, in steps where the baseline is normalised or on 0 to 1."""
    if candidate.shape != baseline.shape:
        return math.inf
    largest = float(baseline.abs().max())
    steps = 1.0 if largest > 4 else 255 * 0.226
    return float((candidate.double() - baseline.double()).square().mean().sqrt()) * steps


def why_whole(path: Path, decoded: Any, made: Any, expected: Any, size: int, shorter: int) -> Cause | None:
    """What explains a tensor whose making was not seen: one mistake in geometry, and what was done to values."""
    candidate = _oriented(made, expected)
    best: tuple[float, Variant | None, Any] = (math.inf, None, None)
    for variant in in_the_whole(path, decoded, size, shorter):
        try:
            baseline = normalised(variant.make(decoded))
        except (OSError, ValueError, TypeError):
            continue
        left = _unexplained(candidate, baseline)
        if left < best[0] - CLEARLY:  # of two that explain it alike the simpler one, which comes first
            best = left, variant, baseline
        if left < CLEARLY:
            break
    left, chosen, baseline = best
    if chosen is None or left > SAME:
        return None
    found = recognise(candidate, baseline)
    if found is not None and found.code not in VALUES:
        return None
    parts = [chosen.words] if chosen.code else []
    said = found is not None and (found.code != "input-dtype" or not parts)
    parts += [f"the tensor {found.summary}"] if found is not None and said else []
    if not parts:
        return None
    return Cause(
        code=chosen.code or (found.code if found is not None else ""),
        summary="; ".join(parts),
        confirmed=True,
        evidence=(f"made so on purpose, it is off by {left:.2g} steps in the root mean square",),
        also=(found.code,) if chosen.code and found is not None and found.code != "input-dtype" else (),
        remedy=chosen.remedy,
    )


CLEARLY = 0.02  # steps, root mean square


def _unexplained(made: torch.Tensor, expected: torch.Tensor) -> float:
    """What no gain and offset of each channel explains, channels in the same or the reverse order: in steps, rms."""
    if made.shape != expected.shape:
        return math.inf
    candidate, baseline = (each[0].double().reshape(each.shape[1], -1) for each in (made, expected))
    baseline = baseline - baseline.mean(dim=1, keepdim=True)
    left = math.inf
    for order in (candidate, candidate.flip(0)):
        centred = order - order.mean(dim=1, keepdim=True)
        spread = centred.square().sum(dim=1, keepdim=True)
        if bool((spread == 0).any()):
            continue
        gap = baseline - centred * ((centred * baseline).sum(dim=1, keepdim=True) / spread)
        left = min(left, float(gap.square().mean().sqrt()) * 255 * 0.226)
    return left


def _oriented(made: Any, expected: Any) -> torch.Tensor:
    tensor = torch.as_tensor(made if isinstance(made, torch.Tensor) else np.ascontiguousarray(as_array(made)))
    if tensor.ndim == 3 and tensor.shape[0] != as_array(expected).shape[2] and tensor.shape[2] == 3:
        tensor = tensor.permute(2, 0, 1)
    return tensor[None]


def _rms(gaps: Sequence[float] | np.ndarray[Any, Any]) -> float:
    array = np.asarray(gaps)
    return math.sqrt(float(np.mean(np.square(array)))) if array.size else 0.0
