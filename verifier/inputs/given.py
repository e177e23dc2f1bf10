"""Random numbers and live tensors, and what is said of any inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from verifier.border.error_texts import first_line
from verifier.errors import InputError
from verifier.graph.tensors import leaves_in, mapped
from verifier.records import InputInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verifier.records import Preprocessing


SMALL = 64  # pixels: enough for five halvings, and a quick run on a laptop


MOST_BYTES = 2**63 - 1  # that a tensor can have


SMALLEST = 32  # pixels: a residual network's strides halve an image five times


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of one forward: tensors and anything else, in any nesting, and what a report says about them.

    `drawn` says that nobody gave them: they are random pictures, which not every model takes.
    `other` are the candidate's, where it is given its own; the forced pass then gives it the baseline's.
    `preprocessing` says how photographs became them, compared stage by stage.
    `batch_dim` is the dimension along which samples lie, None where there are none that could be run alone.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    info: InputInfo = field(kw_only=True)
    other: Inputs | None = field(kw_only=True, default=None)
    preprocessing: Preprocessing | None = field(kw_only=True, default=None)
    drawn: bool = field(kw_only=True, default=False)
    batch_dim: int | None = field(kw_only=True, default=0)


def normal(batch_size: int, image_size: int, seed: int) -> Inputs:
    """Standard normal numbers, float32, batch x 3 x size x size; no global random state is touched.

    Raises:
        InputError: `batch_size` is below 1, `image_size` below 32, or both together are beyond all memory.
    """
    check_batch_size(batch_size)
    parse_image_size(image_size)
    if 4 * batch_size * 3 * image_size**2 > MOST_BYTES:
        raise InputError(
            f"{batch_size:.4g} images of {image_size:.4g} x {image_size:.4g} pixels are more than a computer can "
            "address; use a smaller --batch-size or --image-size"
        )
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(
        batch_size, 3, image_size, image_size, generator=generator, dtype=torch.float32, device="cpu"
    )
    return replace(described((images,), {}, f"standard normal numbers, seed {seed}"), drawn=True)


def tensors(arguments: object) -> Inputs:
    """Live tensors: one, a tuple or list of positional arguments, or a mapping of keyword arguments.

    Each argument may be anything a model takes: tensors in any nesting, numbers, strings, None, objects (caches).
    The tensors are used where they lie; of objects every call gets a copy. `Inputs` are returned as they are.

    Raises:
        InputError: There is no tensor in it, or one that has no elements or no data.
    """
    if isinstance(arguments, Inputs):
        return arguments
    return described(*as_arguments(arguments, "the inputs"), "tensors given by the caller")


def paired(inputs: Inputs, other: Any) -> Inputs:
    """`inputs`, with `other` (in any form `tensors` takes, or None) as what the candidate is given.

    Raises:
        InputError: The two have different numbers of tensors or of samples.
    """
    if other is None:
        return inputs
    candidate = tensors(other)
    b_in, c_in = (
        [leaf for _, leaf in leaves(each.args, each.kwargs) if isinstance(leaf, torch.Tensor)]
        for each in (inputs, candidate)
    )
    if len(b_in) != len(c_in):
        raise InputError(
            f"the baseline is given {len(b_in)} tensors and the candidate {len(c_in)}; give both alike."
        )
    for k, (b, c) in enumerate(zip(b_in, c_in, strict=True)):
        if b.dim() and c.dim() and b.shape[0] != c.shape[0]:
            raise InputError(
                f"input {k} has {b.shape[0]} samples for the baseline and {c.shape[0]} for the candidate; "
                "give both the same ones."
            )
    return replace(inputs, other=replace(candidate, batch_dim=inputs.batch_dim))


def parse_image_size(value: int | str) -> int:
    """Pixels a side: a whole number of at least 32, or `small` for 64.

    Raises:
        InputError: It is neither.
    """
    if value == "small":
        return SMALL
    try:
        size = int(value)
    except ValueError:
        size = 0
    if size < SMALLEST:
        raise InputError(
            f"the image size must be 'small' or a number of pixels of at least {SMALLEST}, not {value!r}"
        )
    return size


def check_batch_size(batch_size: int) -> None:
    """Raise an InputError for a batch without samples."""
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1, not {batch_size}")


def named(inputs: Inputs) -> list[tuple[str, torch.Tensor]]:
    """Every tensor that goes in, with its place; the candidate's own ones too, where it is given some."""
    sides = [("", inputs)] if inputs.other is None else [("baseline", inputs), ("candidate", inputs.other)]
    return [
        (side + name, leaf)
        for side, each in sides
        for name, leaf in leaves(each.args, each.kwargs)
        if isinstance(leaf, torch.Tensor)
    ]


def described(
    args: tuple[Any, ...], kwargs: dict[str, Any], origin: str, files: tuple[str, ...] = ()
) -> Inputs:
    """Inputs with their description, once every tensor in them has been found usable."""
    try:
        mapped((args, kwargs), lambda tensor: tensor)
    except Exception as error:
        raise InputError(
            f"an object in the inputs cannot be copied for every call: {first_line(error)}"
        ) from error
    found = [(name, leaf) for name, leaf in leaves(args, kwargs) if isinstance(leaf, torch.Tensor)]
    if not found:
        raise InputError("there is no tensor in the inputs; comparing outputs of nothing would say nothing")
    for name, tensor in found:
        if tensor.numel() == 0:
            raise InputError(f"the tensor {name} has no elements (shape {tuple(tensor.shape)})")
        if tensor.is_meta:
            raise InputError(f"the tensor {name} lies on the meta device and has no data")
    shapes = tuple(tuple(tensor.shape) for _, tensor in found)
    dtypes = tuple(str(tensor.dtype).removeprefix("torch.") for _, tensor in found)
    sizes = ", ".join(" x ".join(map(str, shape)) or "scalar" for shape in shapes)
    settings = {
        name: _said(leaf)
        for name, leaf in leaves(args, kwargs, objects=False)
        if not isinstance(leaf, torch.Tensor)
    }
    besides = "".join(f", {name}={said}" for name, said in settings.items())
    info = InputInfo(
        description=f"{origin}, {sizes}{besides}",
        shapes=shapes,
        dtypes=dtypes,
        files=files,
        settings=settings,
    )
    return Inputs(args, kwargs, info=info)


def as_arguments(content: object, what: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a forward, from what a file or a caller gives."""
    if isinstance(content, torch.Tensor):
        return (content,), {}
    if isinstance(content, tuple | list):
        return tuple(content), {}
    if isinstance(content, Mapping):
        strange = [key for key in content if not (isinstance(key, str) and key.isidentifier())]
        if strange:
            raise InputError(
                f"{what}: {strange[0]!r} cannot be the name of a forward's argument. A dict of inputs maps "
                "argument names to tensors."
            )
        return (), dict(content)
    raise InputError(
        f"{what}: a {type(content).__name__} cannot be given to a model. Use a tensor, a tuple of positional "
        "arguments or a dict of keyword arguments."
    )


def leaves(args: tuple[Any, ...], kwargs: dict[str, Any], *, objects: bool = True) -> list[tuple[str, Any]]:
    """Every leaf with its place: `[0]`, `[1].boxes`, `mask`; those inside objects, or the objects themselves."""
    named = [(f"[{index}]", value) for index, value in enumerate(args)] + list(kwargs.items())
    return [
        (name + place, leaf) for name, value in named for place, leaf in leaves_in(value, objects=objects)
    ]


_MOST = 60  # characters of what is no tensor


def _said(leaf: object) -> str:
    """What is no tensor as a record has it: as Python writes it if it is short, else its class."""
    if isinstance(leaf, bool | int | float | complex | str | bytes | type(None)):
        said = repr(leaf)
        return said if len(said) <= _MOST else f"{said[: _MOST - 3]}..."
    return f"a {type(leaf).__name__}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def reason(error: Exception) -> str:
    """The first line of an error of a library that reads files."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
