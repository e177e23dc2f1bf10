"""What a recorded model was given: kept where it is small, drawn again where it was drawn, else told by a digest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from verifier.certificates.content import InputRecord
from verifier.certificates.file import storable
from verifier.errors import CertificateError, InputError
from verifier.inputs import named, normal, tensors
from verifier.inputs.given import described
from verifier.weights.fingerprint import Hasher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from verifier.inputs import Inputs
    from verifier.records import InputInfo

_FULL = 1 << 18  # bytes of inputs that are kept
_MOST = 1 << 28  # pixels of inputs that are drawn


def normal_recipe(batch_size: int, image_size: int, seed: int) -> str:
    """The recipe for `verifier.inputs.normal`."""
    return f"normal {batch_size} {image_size} {seed}"


def spec_recipe(source: str) -> str:
    """Where inputs came from that `verifier.inputs.read` has read; they are too large to keep."""
    return f"spec {source}"


def as_record(given: Inputs, info: InputInfo, recipe: str) -> InputRecord:
    """What is said of the inputs in a certificate."""
    structure = None
    found = [tensor for _, tensor in named(given)]
    if (
        not recipe.startswith("normal")
        and sum(t.numel() * t.element_size() for t in found) <= _FULL
        and all(map(storable, found))
    ):
        order: list[Tensor] = []
        try:
            packed = _packed({"args": given.args, "kwargs": given.kwargs}, order)
        except TypeError:
            packed = None
        if packed is not None and len(order) == len(found):
            structure = packed["dict"]
    return InputRecord(info=info, batch_dim=given.batch_dim, recipe=recipe, structure=structure)


def kept(given: Inputs, record: InputRecord) -> list[Tensor]:
    """The tensors that the file keeps."""
    return [] if record.structure is None else [tensor for _, tensor in named(given)]


def given_to(record: InputRecord, found: Sequence[Tensor], other: Any, source: str) -> Inputs:
    """The inputs of a certificate, or `other` where the caller gives them anew.

    Raises:
        CertificateError: They are not those that were recorded, or cannot be had.
        InputError: They cannot be used.
    """
    if other is not None:
        given = tensors(other)
    elif record.structure is not None:
        given = _restored(record, found, source)
    elif record.recipe:
        given = _made(record.recipe, source)
    else:
        raise CertificateError(
            f"{source} does not hold its inputs ({record.info.description}); give them: they are known by digest."
        )
    given = replace(given, batch_dim=record.batch_dim)
    digest = Hasher().of_all(named(given))
    if digest != record.info.digest:
        shapes = [tuple(t.shape) for _, t in named(given)]
        what = (
            f"shapes {shapes}, not {list(record.info.shapes)}"
            if shapes != list(record.info.shapes)
            else "other numbers of the same shapes"
        )
        raise CertificateError(
            f"{source} was recorded on other inputs ({record.info.description}): these are {what}."
        )
    return given


def _made(recipe: str, source: str) -> Inputs:
    """Random numbers made again. A recipe that names code is told, not followed: a file does not say what is run."""
    kind, _, rest = recipe.partition(" ")
    if kind == "spec":
        raise CertificateError(
            f"{source} was recorded on what {rest[:200]!r} leads to; give that once more as --input."
        )
    try:
        batch, size, seed = map(int, rest.split())
    except ValueError:
        batch = size = seed = 0
    if kind != "normal" or not 0 < batch * size * size <= _MOST:
        raise CertificateError(f"{source} has a recipe for inputs that is not known: {recipe[:60]!r}.")
    return normal(batch, size, seed)


def _restored(record: InputRecord, found: Sequence[Tensor], source: str) -> Inputs:
    try:
        whole = _unpacked({"dict": record.structure}, found)
        args, kwargs = tuple(whole["args"]), dict(whole["kwargs"])
    except (TypeError, ValueError, LookupError, RecursionError) as error:
        raise CertificateError(f"{source} holds inputs that are no arguments.") from error
    try:
        return described(args, kwargs, "inputs of the certificate")
    except InputError as error:
        raise CertificateError(f"{source}: {error}") from error


def _packed(value: Any, found: list[Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        found.append(value)
        return {"tensor": len(found) - 1}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_packed(each, found) for each in value]}
    if type(value) is dict and all(isinstance(name, str) for name in value):
        return {"dict": {name: _packed(each, found) for name, each in value.items()}}
    if value is None or type(value) in (bool, int, str) or (type(value) is float and value - value == 0):
        return value
    raise TypeError(type(value).__name__)


def _unpacked(value: Any, found: Sequence[Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return found[inner]
    if kind in ("list", "tuple"):
        made = [_unpacked(each, found) for each in inner]
        return made if kind == "list" else tuple(made)
    if kind == "dict":
        return {name: _unpacked(each, found) for name, each in inner.items()}
    raise TypeError(kind)
