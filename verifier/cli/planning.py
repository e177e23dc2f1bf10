"""From options to what `verify` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verifier.errors import ModelError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from verifier.inputs import Inputs


def plan_models(arch: str | None, baseline: str | None, candidate: str | None) -> tuple[str, str]:
    """The two specifications. An explicit one takes the place of the half of `--arch` it names.

    Raises:
        UsageError: Not both models are given, or `--arch` is unknown.
    """
    if arch is not None:
        from verifier.sources import arch as both

        ours, theirs = both(arch)
        return baseline or ours, candidate or theirs
    if baseline is None or candidate is None:
        missing = "--candidate" if baseline is not None else "--baseline"
        raise UsageError(
            f"two models are needed: give --arch NAME, or --baseline and --candidate ({missing} is missing)."
            if baseline or candidate
            else "two models are needed: give --arch NAME, or --baseline SPEC and --candidate SPEC."
        )
    return baseline, candidate


def plan_inputs(
    images: str | None,
    file: Path | None,
    batch_size: int,
    image_size: str,
    seed: int,
    preprocessing: str | None = None,
) -> Inputs:
    """The inputs: photographs (and the candidate's preprocessing if it is named), a file's tensors or random numbers.

    Raises:
        InputError: They cannot be read or made.
        UsageError: Both photographs and a file were asked for, or a preprocessing without photographs.
    """
    from verifier import inputs

    size = inputs.parse_image_size(image_size)
    if images is not None and file is not None:
        raise UsageError("--images and --input exclude each other; give one of them.")
    if images is not None:
        return inputs.images(images, None, size, preprocessing, seed)
    if preprocessing is not None:
        raise UsageError("--candidate-preprocessing needs photographs to compare on; give --images too.")
    if file is not None:
        return inputs.file(file)
    return inputs.normal(batch_size, size, seed)


def explained(error: ModelError, inputs: Inputs) -> ModelError:
    """A candidate's failure, with what stage 0 found if its photographs were prepared otherwise."""
    found = inputs.preprocessing
    if found is None or not found.applied:
        return error
    where = found.first_difference or "the result"
    why = f" ({found.cause.summary})" if found.cause else ""
    return ModelError(f"{error} Its photographs were prepared otherwise: {where} differs{why}.")
