"""What goes into both models: random numbers, photographs, a file's tensors or live ones."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch.utils import _pytree as pytree

from verifier.errors import InputError, ModelError, VerifierError
from verifier.result import InputInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from verifier.preprocessing import Comparison
    from verifier.result import Preprocessing

SMALL = 64  # pixels: enough for five halvings, and a quick run on a laptop
MOST_BYTES = 2**63 - 1  # that a tensor can have
SMALLEST = 32  # pixels: a residual network's strides halve an image five times

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp"})

# Colour photographs in scikit-image's wheel itself; its other images would be downloaded.
SAMPLES = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The arguments of one forward: tensors, or containers of them, and what a report says about them.

    `other` are the candidate's, where it is given its own; the forced pass then gives it the baseline's.
    `preprocessing` says how photographs became them, compared stage by stage.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    info: InputInfo = field(kw_only=True)
    other: Inputs | None = field(kw_only=True, default=None)
    preprocessing: Preprocessing | None = field(kw_only=True, default=None)


def normal(batch_size: int, image_size: int, seed: int) -> Inputs:
    """Standard normal numbers, float32, batch x 3 x size x size; no global random state is touched.

    Raises:
        InputError: `batch_size` is below 1, `image_size` below 32, or both together are beyond all memory.
    """
    _check_batch_size(batch_size)
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
    return _inputs((images,), {}, f"standard normal numbers, seed {seed}")


def images(
    directory: str | Path,
    batch_size: int | None,
    image_size: int,
    candidate: str | None = None,
    seed: int = 0,
) -> Inputs:
    """The first `batch_size` photographs of a directory, or all, preprocessed as for ImageNet: float32.

    JPEG, PNG and WebP files directly in `directory` are taken in the order of their names; the directory
    `samples` stands for photographs that come with scikit-image. Each is turned upright as its EXIF data
    says, converted to RGB, its short side resized to 8/7 of `image_size` (256 for 224; bilinear, with
    antialiasing), cropped to the centre, scaled to 0..1 and normalised by ImageNet's mean and standard
    deviation. This is torchvision's preprocessing for classification, except that torchvision leaves
    photographs on their side.

    The candidate's preprocessing is compared with it stage by stage: the one that `candidate` names
    (`verifier.preprocessing.named`), or this package's own. Where they differ beyond rounding, `other` holds what the
    candidate makes of the photographs. `seed` is for what either draws.

    Raises:
        InputError: The directory is missing or without images, scikit-image is not installed for `samples`,
            or images cannot be read; these are counted and the first ones named.
        SourceError: `candidate` leads to no preprocessing.
        ModelError: The candidate's preprocessing raises, or makes tensors of several shapes.
    """
    if batch_size is not None:
        _check_batch_size(batch_size)
    parse_image_size(image_size)
    # Only photographs need these.
    from verifier.preprocessing import Comparison, Ours, named, recipe  # noqa: PLC0415
    from verifier.preprocessing.pictures import MOST_PIXELS  # noqa: PLC0415

    chosen = recipe("classification", image_size)
    compared = Comparison(chosen, Ours(chosen) if candidate is None else named(candidate, chosen), seed)
    files, origin = photographs(directory)
    files = files[:batch_size]
    if image_size**2 > MOST_PIXELS:
        raise InputError(
            f"pictures of {image_size:.4g} x {image_size:.4g} pixels are larger than the {MOST_PIXELS // 10**6} "
            "megapixels that photographs are prepared in; use a smaller --image-size"
        )
    made = read_photographs(files, compared)
    names = tuple(file.name for file in files)
    record = compared.record()
    other = None
    if record.status == "differs":
        other = _inputs(
            (_stacked([theirs for _, theirs in made], record),), {}, f"{origin}, by {candidate}", names
        )
        record = msgspec.structs.replace(record, applied=True)
    given = _inputs((torch.stack([ours[0] for ours, _ in made]),), {}, origin, names)
    return replace(given, other=other, preprocessing=record)


def photographs(directory: str | Path) -> tuple[list[Path], str]:
    """The photographs of a directory in the order of their names, or the samples, and what to call them.

    Raises:
        InputError: There are none.
    """
    if str(directory) == "samples":
        return _samples(), "sample photographs from scikit-image"
    return _photographs(Path(directory)), f"photographs from {directory}"


def read_photographs(
    files: Sequence[Path], compared: Comparison
) -> list[tuple[list[torch.Tensor], list[Any]]]:
    """Each photograph as both preprocessings make it.

    Raises:
        InputError: Some cannot be read, or are too large to be; they are counted and the first ones named.
        ModelError: The candidate's preprocessing raises.
    """
    from verifier.preprocessing.pictures import MOST_PIXELS, pixels  # noqa: PLC0415 - only photographs need it

    # All sizes stand in the files' first bytes; decoding a single one of these would take a minute.
    large = [f"{file.name} ({size / 1e6:.0f})" for file in files if (size := pixels(file)) > MOST_PIXELS]
    if large:
        raise InputError(
            f"{len(large)} of {len(files)} images in {files[0].parent} have more than the {MOST_PIXELS // 10**6} "
            f"megapixels that are decoded here: {_listed(large)}. Scale them down, or leave them out."
        )
    made = []
    unreadable = []
    for file in files:
        try:
            made.append(compared.add(file))
        except VerifierError:
            raise
        except Exception as error:  # each decoder has its own ways to fail
            strange = type(error).__name__ == "UnidentifiedImageError"
            unreadable.append(f"{file.name} ({'not an image' if strange else _reason(error)})")
    if unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(files)} images in {files[0].parent} cannot be read: "
            f"{_listed(unreadable)}. Mend or remove them."
        )
    return made


def _stacked(made: Sequence[Sequence[Any]], record: Preprocessing) -> torch.Tensor:
    """The candidate's tensors in one, float32 unless they are floating-point already."""
    from verifier.preprocessing.pictures import as_array  # noqa: PLC0415 - only photographs need it

    each = [one[0] if isinstance(one[0], torch.Tensor) else torch.as_tensor(as_array(one[0])) for one in made]
    shapes = list(dict.fromkeys(tuple(tensor.shape) for tensor in each))
    if len(shapes) > 1:
        said = f" ({record.cause.summary})" if record.cause else ""
        raise ModelError(
            f"the candidate's preprocessing {record.candidate} makes tensors of several shapes, {shapes[0]} and "
            f"{shapes[1]}, which do not go into one batch{said}."
        )
    return torch.stack([tensor if tensor.is_floating_point() else tensor.float() for tensor in each])


def file(path: str | Path) -> Inputs:
    """The tensors in a `.npy`, `.pt`, `.pth` or `.safetensors` file.

    One tensor is the first positional argument. In a `.pt` file a tuple or list holds the positional
    arguments and a dict the keyword arguments, each a tensor or a container of tensors; several tensors in a
    `.safetensors` file are keyword arguments by their names. Nothing in a file can run: pickled objects are
    refused.

    Raises:
        InputError: The file is missing, of another kind, corrupt, or holds anything but tensors.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], object]] = {
        ".npy": _read_npy,
        ".pt": _read_pt,
        ".pth": _read_pt,
        ".safetensors": _read_safetensors,
    }
    read = readers.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path} has none of the endings {', '.join(readers)} that input files can have")
    if not path.is_file():
        raise InputError(f"{path} {'is a directory' if path.is_dir() else 'does not exist'}")
    args, kwargs = _arguments(read(path), str(path))
    for name, leaf in _leaves(args, kwargs):
        if not isinstance(leaf, torch.Tensor):
            raise InputError(
                f"{path} holds a {type(leaf).__name__} {name}; an input file may hold tensors only"
            )
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.Tensor.detach, (args, kwargs))
    return _inputs(args, kwargs, f"tensors from {path.name}", (path.name,))


def tensors(arguments: object) -> Inputs:
    """Live tensors: one, a tuple or list of positional arguments, or a dict of keyword arguments.

    Each argument may be a container of tensors, and may hold numbers, strings and None besides. The tensors
    are used where they lie. `Inputs` are returned as they are.

    Raises:
        InputError: There is no tensor in it, or one that has no elements or no data.
    """
    if isinstance(arguments, Inputs):
        return arguments
    return _inputs(*_arguments(arguments, "the inputs"), "tensors given by the caller")


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


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1, not {batch_size}")


def paired(inputs: Inputs, other: Any) -> Inputs:
    """`inputs`, with `other` (in any form `tensors` takes, or None) as what the candidate is given.

    Raises:
        InputError: The two have different numbers of tensors or of samples.
    """
    if other is None:
        return inputs
    theirs = tensors(other)
    ours_in, theirs_in = (
        [leaf for leaf in pytree.tree_leaves((each.args, each.kwargs)) if isinstance(leaf, torch.Tensor)]
        for each in (inputs, theirs)
    )
    if len(ours_in) != len(theirs_in):
        raise InputError(
            f"the baseline is given {len(ours_in)} tensors and the candidate {len(theirs_in)}; give both alike."
        )
    for k, (a, b) in enumerate(zip(ours_in, theirs_in, strict=True)):
        if a.dim() and b.dim() and a.shape[0] != b.shape[0]:
            raise InputError(
                f"input {k} has {a.shape[0]} samples for the baseline and {b.shape[0]} for the candidate; "
                "give both the same ones."
            )
    return replace(inputs, other=theirs)


def _inputs(
    args: tuple[Any, ...], kwargs: dict[str, Any], origin: str, files: tuple[str, ...] = ()
) -> Inputs:
    """Inputs with their description, once every tensor in them has been found usable."""
    found = [(name, leaf) for name, leaf in _leaves(args, kwargs) if isinstance(leaf, torch.Tensor)]
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
    info = InputInfo(description=f"{origin}, {sizes}", shapes=shapes, dtypes=dtypes, files=files)
    return Inputs(args, kwargs, info=info)


def _arguments(content: object, what: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(content, torch.Tensor):
        return (content,), {}
    if isinstance(content, tuple | list):
        return tuple(content), {}
    if isinstance(content, dict):
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


def named(inputs: Inputs) -> list[tuple[str, torch.Tensor]]:
    """Every tensor that goes in, with its place; the candidate's own ones too, where it is given some."""
    sides = [("", inputs)] if inputs.other is None else [("baseline", inputs), ("candidate", inputs.other)]
    return [
        (side + name, leaf)
        for side, each in sides
        for name, leaf in _leaves(each.args, each.kwargs)
        if isinstance(leaf, torch.Tensor)
    ]


def _leaves(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every leaf with its place: `[0]`, `[1].boxes`, `mask`."""
    named = [(f"[{index}]", value) for index, value in enumerate(args)] + list(kwargs.items())
    return [
        (name + pytree.keystr(path), leaf)
        for name, value in named
        for path, leaf in pytree.tree_leaves_with_path(value)
    ]


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__


_NUMPYS = (b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06")
"""How arrays begin, and archives of them."""


def _read_npy(path: Path) -> torch.Tensor:
    try:
        with path.open("rb") as stream:
            begins = stream.read(6)
            stream.seek(0)
            array = np.load(stream, allow_pickle=False) if begins.startswith(_NUMPYS) else None
    except Exception as error:
        why = _reason(error)
        if "allow_pickle" in why:  # which nobody should be told to do
            why = "it holds Python objects, which are refused because loading them could run code"
        raise InputError(f"{path} cannot be read as a NumPy array of numbers: {why}") from error
    if array is None:
        raise InputError(f"{path} is no .npy file, whatever its name says; write one with numpy.save")
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} is an archive of arrays, not one; save the one that is the input")
    try:
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
    except TypeError as error:
        raise InputError(f"{path} holds {array.dtype} values, which torch has no type for") from error


def _read_pt(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read: it is damaged, or it holds more than tensors, which is refused because "
            "loading it could run code. Save a tensor, a tuple or a dict of tensors with torch.save."
        ) from error


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file  # noqa: PLC0415 - only this format needs it

    try:
        content = load_file(path)
    except Exception as error:
        raise InputError(f"{path} cannot be read as safetensors: {_reason(error)}") from error
    return next(iter(content.values())) if len(content) == 1 else content


def _photographs(directory: Path) -> list[Path]:
    if not directory.is_dir():
        raise InputError(
            f"{directory} is not a directory; --images takes a directory of photographs or 'samples'"
            if directory.exists()
            else f"the image directory {directory} does not exist"
        )
    found = sorted(
        (
            path
            for path in directory.iterdir()
            if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
        ),
        key=lambda path: path.name,
    )
    if not found:
        endings = ", ".join(sorted(EXTENSIONS))
        raise InputError(f"{directory} holds no image ({endings}); folders inside it are not searched")
    return found


def _samples() -> list[Path]:
    package = importlib.util.find_spec("skimage")
    folders = list(package.submodule_search_locations or ()) if package else []
    found = [path for folder in folders for name in SAMPLES if (path := Path(folder, "data", name)).is_file()]
    if not found:
        raise InputError(
            "the sample photographs come with scikit-image: pip install scikit-image, "
            "or give --images a directory of your own"
        )
    return found
