"""Which tensors both models compute with: drawn, loaded, taken over or left as they are.

Whatever the mode, the outcome is two sets of master tensors in the models' own dtypes. The candidate's share
memory with the baseline's wherever the parameter map says so; neither model is written to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from verifier.align import Alignment
from verifier.copying import copy_with, state_of
from verifier.errors import DownloadError, UsageError, WeightsError
from verifier.graph import Graph
from verifier.graph.operators import operator_name
from verifier.result import WeightsInfo

MODES = ("calibrated", "init", "imagenet", "as-is", "transfer")

# Affine parameters are drawn from +-[low, high] around their neutral value, which they avoid: a parameter of
# exactly 0 or 1 cannot reveal that it is missing, swapped or applied twice.
_GAIN = ((0.6, 0.9), (1.1, 1.4))
_SHIFT = (0.1, 0.3)
_QUIET = 0.25

# Share of a channel's spread by which calibrated statistics miss those of the calibration input.
_JITTER = 0.2

# A channel whose variance on the calibration input is almost nothing would be scaled up without bound.
_VARIANCE_FLOOR = 1e-3


@dataclass(frozen=True)
class Masters:
    """Master tensors by qualified name for each model, and what is to be said about them."""

    baseline: Mapping[str, Tensor]
    candidate: Mapping[str, Tensor]
    info: WeightsInfo


def choose(
    mode: str,
    baseline: nn.Module,
    candidate: nn.Module,
    alignment: Alignment,
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    *,
    baseline_spec: str = "",
    seed: int = 0,
) -> Masters:
    """Master tensors for both models.

    Args:
        mode: `calibrated` (seeded draws that excite every parameter, batch-norm statistics measured on the
            input), `init` (as the constructors left them, the baseline's for both), `imagenet` (torchvision's
            published weights), `transfer` (the baseline's for both), `as-is` (each model's own), or the path
            of a `.safetensors`, `.pt` or `.pth` file with a state dict of either model.
        baseline: The baseline, untouched.
        candidate: The candidate, untouched.
        alignment: Tells which tensor of one is which of the other.
        inputs: Positional and keyword inputs to calibrate on, in the models' own dtype.
        baseline_spec: The baseline's specification; `imagenet` needs a `torchvision:` one.
        seed: For the draws.

    Raises:
        WeightsError: A file cannot be read, or fits neither model.
        UsageError: `imagenet` was asked for a model that has no published weights.
        DownloadError: Published weights are neither cached nor to be had.
    """
    own, theirs = state_of(baseline), state_of(candidate)
    source = ""
    if mode == "calibrated":
        masters = calibrated(baseline, own, inputs, seed, quiet=_branch_ends(alignment.baseline))
    elif mode in {"init", "transfer", "as-is"}:
        masters = own
    elif mode == "imagenet":
        masters, source = _published(baseline_spec, own)
    else:
        source = mode
        masters, theirs, mode = _from_file(Path(mode), own, theirs, alignment), theirs, "file"
    if mode == "as-is":
        candidates, kept = theirs, tuple(theirs)
    else:
        buffers = {name for name, _ in candidate.named_buffers()}
        live = mode == "transfer"
        candidates, kept = _carry_over(own, theirs, masters, alignment, buffers, live=live)
    info = WeightsInfo(
        mode=mode,
        source=source,
        parameter_map=dict(alignment.parameters),
        unmapped_baseline=tuple(sorted(set(own) - set(alignment.parameters.values()))),
        unmapped_candidate=tuple(sorted(set(theirs) - set(alignment.parameters))),
        unexercised=tuple(_unexercised(baseline, masters)),
        kept=kept,
    )
    return Masters(masters, candidates, info)


def _carry_over(
    own: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    masters: Mapping[str, Tensor],
    alignment: Alignment,
    buffers: Collection[str],
    *,
    live: bool,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The candidate's tensors: the baseline's by the parameter map, with the candidate's own edits kept.

    Two models whose random tensors are mostly bit-identical come from the same draws: the candidate is a copy,
    and a tensor in which it differs was edited. Overwriting the edit would hide the very thing that is asked
    about, so the difference is carried over. With `live` the values were given, so every difference is one.
    Otherwise they are a constructor's: parameters that were drawn anew, and gains and shifts that only start
    from another constant, are initialisation and are replaced.
    """
    mapped = {name: twin for name, twin in alignment.parameters.items() if own[twin].shape == theirs[name].shape}
    telling = [name for name, twin in mapped.items() if _varies(own[twin])]
    same = sum(torch.equal(own[mapped[name]], theirs[name]) for name in telling)
    copied = len(telling) > 0 and same > len(telling) / 2
    chosen = dict(theirs)
    kept = [name for name in theirs if name not in mapped]
    for name, twin in mapped.items():
        chosen[name] = masters[twin]
        if not copied or torch.equal(own[twin], theirs[name]):
            continue
        if live or name in buffers or _is_edit(own[twin], theirs[name]):
            difference = theirs[name].double() - own[twin].double()
            chosen[name] = (masters[twin].double() + difference).to(theirs[name].dtype)
            kept.append(name)
    return chosen, tuple(kept)


def _varies(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor != tensor.flatten()[0]).any())


def _is_edit(own: Tensor, theirs: Tensor) -> bool:
    """Whether a parameter that differs from its twin was edited rather than initialised otherwise."""
    if not (_varies(own) and _varies(theirs)):
        return float((theirs - own).abs().max()) < 0.5  # noqa: PLR2004 - half the way from 0 to 1
    both = torch.stack([own.flatten().double(), theirs.flatten().double()])
    return float(torch.corrcoef(both)[0, 1]) > 0.5  # noqa: PLR2004 - fresh draws correlate by chance only


def calibrated(
    model: nn.Module,
    state: Mapping[str, Tensor],
    inputs: tuple[Sequence[Any], Mapping[str, Any]],
    seed: int,
    quiet: Collection[str] = (),
) -> dict[str, Tensor]:
    """Tensors under which every parameter of `model` shows in its output and nothing overflows.

    Tensors that are constant after construction (gains of 1, shifts of 0, zero heads, layer scales) are drawn
    from a seeded generator; random ones stay. Then the model runs once, and every batch norm's running mean
    and variance are set to those of its own input, layer by layer, so that activations keep their scale at any
    depth (the idea of data-dependent initialisation: Mishkin & Matas, "All you need is a good init", 2016).
    Gains named in `quiet` are drawn smaller: where every residual branch is as loud as its trunk, a random
    network is chaotic and multiplies rounding errors by a constant per block.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {name for name, _ in model.named_parameters()}
    drawn = {
        name: _draw(tensor, generator, _QUIET if name in quiet else 1.0) if name in parameters else tensor
        for name, tensor in state.items()
    }
    args, kwargs = inputs
    copy = copy_with(model, drawn, lambda tensor: tensor, role="baseline")
    with torch.no_grad(), _Calibration(generator):
        copy(*args, **kwargs)
    measured = state_of(copy)
    return {name: drawn[name] if name in parameters else measured[name] for name in state}


class _Calibration(torch.overrides.TorchFunctionMode):
    """Sets each batch norm's running statistics to nearly those of its input, just before it uses them."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def _measured(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance a channel, moved a little: exact ones would hide a norm that uses the batch's own."""
        axes = [axis for axis in range(x.dim()) if axis != 1]
        spread, centre = torch.var_mean(x.double().cpu(), dim=axes, correction=0)
        spread = spread.clamp(min=float(spread.median()) * _VARIANCE_FLOOR or 1.0)
        moved = 2 * torch.rand(2, len(spread), generator=self._generator, dtype=torch.float64) - 1
        return centre + _JITTER * moved[0] * spread.sqrt(), spread * (1 + _JITTER * moved[1])

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if operator_name(func) == "batch_norm":
            found = dict(zip(("input", "running_mean", "running_var"), args, strict=False)) | kwargs
            x, mean, variance = found["input"], found.get("running_mean"), found.get("running_var")
            if mean is not None and variance is not None and not kwargs.get("training", False):
                for statistic, value in zip((mean, variance), self._measured(x), strict=True):
                    statistic.copy_(value)
        return func(*args, **kwargs)


def _branch_ends(graph: Graph) -> set[str]:
    """Gains of norms whose output is added to a trunk that no norm has just passed."""
    gains: dict[int, str] = {}
    for site in graph.comparable:
        names = [use.name for use in site.tensors if use.role == "weight"]
        if site.op.endswith("_norm") and names:
            gains[site.index] = names[0]
    found = set()
    for site in graph.comparable:
        if site.op == "add":
            normed = [source for source in site.inputs if source in gains]
            if len(normed) == 1 and len(site.inputs) > 1:
                found.add(gains[normed[0]])
    return found


def _draw(tensor: Tensor, generator: torch.Generator, scale: float) -> Tensor:
    """A replacement for a tensor that is constant; any other tensor itself."""
    if not tensor.is_floating_point() or tensor.numel() < 2 or _varies(tensor):  # noqa: PLR2004
        return tensor
    value = float(tensor.flatten()[0])
    shape = tensor.shape
    sign = torch.randint(0, 2, shape, generator=generator).double() * 2 - 1
    unit = torch.rand(shape, generator=generator, dtype=torch.float64)
    if value == 0 and tensor.dim() > 1:  # a zero head: Kaiming's scale for the fan-in
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(tensor[0].numel())
    elif value == 0:
        drawn = sign * (_SHIFT[0] + unit * (_SHIFT[1] - _SHIFT[0]))
    elif value == 1 or abs(value) < 1e-2:  # noqa: PLR2004 - a gain, or a layer scale that hides its branch
        low, high = (side[0] + unit * (side[1] - side[0]) for side in _GAIN)
        drawn = torch.where(sign > 0, high, low) * scale
    else:
        return tensor
    return drawn.to(tensor.dtype).to(tensor.device)


def _unexercised(model: nn.Module, masters: Mapping[str, Tensor]) -> list[str]:
    found = []
    for name, _ in model.named_parameters():
        tensor = masters[name]
        if tensor.numel() and (bool((tensor == 0).all()) or bool((tensor == 1).all())):
            found.append(name)
    return found


def _published(spec: str, own: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    kind, _, name = spec.partition(":")
    if kind != "torchvision":
        raise UsageError(
            "--weights imagenet means torchvision's published weights, so the baseline must be torchvision:NAME."
        )
    import torchvision  # noqa: PLC0415 - four seconds that only this branch and the sources need

    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:  # URLError is one
        raise DownloadError(
            f"{weights} could not be downloaded ({error}). Place {file.name} from {weights.url} in "
            f"{file.parent} and run again."
        ) from error
    except RuntimeError as error:
        raise DownloadError(f"{file} is damaged ({error}). Delete it and run again.") from error
    return _fitted(state, own, str(weights)), str(weights)


def _from_file(
    path: Path, own: Mapping[str, Tensor], theirs: Mapping[str, Tensor], alignment: Alignment
) -> dict[str, Tensor]:
    """The baseline's tensors from a state dict of either model."""
    state = read_state(path)
    if _overlap(state, own) >= _overlap(state, theirs):
        return _fitted(state, own, str(path))
    loaded = _fitted(state, theirs, str(path))
    masters = dict(own)
    for name, twin in alignment.parameters.items():
        masters[twin] = loaded[name]
    return masters


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors`, `.pt` or `.pth` file by name. Nothing in the file is executed.

    A `state_dict` or `model` entry is looked into, and a `module.` prefix (left by DataParallel) is dropped.

    Raises:
        WeightsError: The file is missing, damaged, of another kind, or holds more than tensors.
    """
    if not path.is_file():
        raise WeightsError(
            f"--weights {path}: there is no such file. Use one of {', '.join(MODES[:4])}, or a .safetensors, "
            ".pt or .pth file."
        )
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
        if isinstance(state.get(key), dict):
            state = state[key]
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict: a mapping of names to tensors is expected.")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return dict(state)


def _unpickle(path: Path) -> dict[str, Any]:
    import pickle  # noqa: PLC0415, S403 - only for the name of its error

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is damaged; loading it could run code, so it was not loaded. "
            "Save a plain state dict: torch.save(model.state_dict(), path), or use .safetensors."
        ) from error
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        raise WeightsError(f"{path} is damaged or no torch file: {first_line}") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict.")
    return state


def _overlap(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
    return sum(name in own and own[name].shape == tensor.shape for name, tensor in state.items())


def _fitted(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """`state` in the dtypes of `own`; every parameter and running statistic must be there in its shape."""
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unknown = [name for name in state if name not in own]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, the model's {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
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
        raise WeightsError(
            f"{source} is of another architecture than the model: tensors {'; '.join(parts)}."
        )
    return {
        name: state[name].to(tensor.dtype).to(tensor.device) if name in state else tensor
        for name, tensor in own.items()
    }


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
