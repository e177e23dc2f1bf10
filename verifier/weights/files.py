"""Reading weights from files and from torchvision, and seeing that they fit."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from verifier.border.error_texts import first_said
from verifier.errors import DownloadError, UsageError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def published(spec: str, expected: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Torchvision's newest weights for the model `spec` names, and what they are called.

    They come from torch hub's cache, or are downloaded into it and checked against their hash.

    Raises:
        UsageError: `spec` names no torchvision model with weights.
        DownloadError: They are neither cached nor to be had, or the cached file is damaged.
    """
    kind, _, name = spec.partition(":")
    if kind != "torchvision":
        raise UsageError(
            "--weights imagenet means torchvision's published weights, so the baseline must be torchvision:NAME."
        )
    import torchvision  # noqa: PLC0415 - four seconds that only this branch and the sources need

    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torch hub announces downloads on stdout
            state = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # URLError is one
        raise DownloadError(
            f"{weights} could not be downloaded ({error}). Place {file.name} from {weights.url} in "
            f"{file.parent} and run again."
        ) from error
    except RuntimeError as error:
        raise DownloadError(f"{file} is damaged ({error}). Delete it and run again.") from error
    return fitted(state, expected, str(weights)), str(weights)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pt` or `.pth` file by name. Nothing in the file is executed.

    A `state_dict` or `model` entry is looked into, and a `module.` prefix (left by DataParallel) is dropped.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(
            f"--weights {path}: there is no such file. Use calibrated, init, imagenet, as-is, or a "
            ".safetensors, .pt or .pth file."
        )
    state: dict[str, Any]
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # noqa: PLC0415

        try:
            state = load_file(path)
        except Exception as error:
            raise WeightsError(f"{path} is damaged or no safetensors file: {error}.") from error
    elif path.suffix in {".pt", ".pth"}:
        state = _unpickle(path)
    else:
        raise WeightsError(f"{path}: weights are read from .safetensors, .pt and .pth files only.")
    for key in ("state_dict", "model"):
        inner = state.get(key)
        if isinstance(inner, dict):
            state = inner
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict: a mapping of names to tensors is expected.")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def _unpickle(path: Path) -> dict[str, Any]:
    import pickle  # noqa: PLC0415 - only for the name of its error

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is damaged; loading it could run code, so it was not loaded. "
            "Save a plain state dict: torch.save(model.state_dict(), path), or use .safetensors."
        ) from error
    except Exception as error:
        raise WeightsError(f"{path} is damaged or no torch file: {first_said(error)}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict.")
    return state


def overlap(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int:
    """How many tensors of `state` a model has, in the same shape."""
    return sum(name in expected and expected[name].shape == tensor.shape for name, tensor in state.items())


def counts_batches(name: str) -> bool:
    """Whether a tensor counts what a batch norm was trained on: another spelling of one may do without."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def fitted(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """`state` in the dtypes a model's are in; every parameter and running statistic must be there in its shape."""
    missing = [name for name in expected if name not in state and not counts_batches(name)]
    unknown = [name for name in state if name not in expected and not counts_batches(name)]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, the model's {tuple(expected[name].shape)}"
        for name in expected
        if name in state and state[name].shape != expected[name].shape
    ]
    if missing or unknown or shapes:
        parts = [
            f"{len(names)} {label} ({_some(names)})"
            for label, names in (
                ("of other shape", shapes),
                ("missing", missing),
                ("unknown to the model", unknown),
            )
            if names
        ]
        raise WeightsError(f"{source} is of another architecture than the model: tensors {'; '.join(parts)}.")
    return {
        name: state[name].to(tensor.dtype).to(tensor.device) if name in state else tensor
        for name, tensor in expected.items()
    }


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
