"""What initialisations are documented to draw, as data: torch's defaults and what torchvision's families do instead.

A declaration is a claim: it is believed of a tensor only where the baseline's own values do not contradict it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from verifier.initialisation.distributions import (
    KAIMING_IN,
    KAIMING_OUT,
    ONES,
    TORCH_DEFAULT,
    ZEROS,
    Distribution,
    Initialiser,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


class Declared(NamedTuple):
    """The distribution a tensor is documented to be drawn from, the initialiser's name, and where that is said.

    `shape` is the one whose fans count: a bias has those of its weight.
    """

    distribution: Distribution
    initialiser: str
    source: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.initialiser}: {self.distribution}"


Rules = dict[tuple[str, str], Initialiser]

_CONVOLUTIONS = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
_NORMS = (
    *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm"),
    *("GroupNorm", "LayerNorm", "RMSNorm", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
)

_TORCH: Rules = {
    **{(kind, "weight"): TORCH_DEFAULT for kind in ("Linear", *_CONVOLUTIONS)},
    **{(kind, "bias"): TORCH_DEFAULT for kind in ("Linear", *_CONVOLUTIONS)},
    **{(kind, "weight"): ONES for kind in _NORMS},
    **{(kind, "bias"): ZEROS for kind in _NORMS},
    **{(kind, "running_mean"): ZEROS for kind in _NORMS},
    **{(kind, "running_var"): ONES for kind in _NORMS},
    **{(kind, "num_batches_tracked"): ZEROS for kind in _NORMS},
    ("Embedding", "weight"): Initialiser("normal_(std=1)", "normal", 1.0),
    ("PReLU", "weight"): Initialiser("constant_(0.25)", "constant", 0.25),
    ("MultiheadAttention", "in_proj_weight"): Initialiser("xavier_uniform_()", "uniform", 1.0, "average"),
    ("MultiheadAttention", "in_proj_bias"): ZEROS,
    ("NonDynamicallyQuantizableLinear", "weight"): TORCH_DEFAULT,
    ("NonDynamicallyQuantizableLinear", "bias"): ZEROS,
}
_SMALL = Initialiser("normal_(std=0.01)", "normal", 0.01)
_PLAIN_HEAD: Rules = {("Linear", "weight"): _SMALL, ("Linear", "bias"): ZEROS}
_KAIMING: Rules = {("Conv2d", "weight"): KAIMING_OUT}
_NO_BIAS: Rules = {("Conv2d", "bias"): ZEROS}
_CONVNEXT = Initialiser("trunc_normal_(std=0.02)", "trunc_normal_", 0.02)

# By the module a model's class is defined in. What a family does not say, torch's defaults do.
FAMILIES: dict[str, Rules] = {
    "torchvision.models.resnet": _KAIMING,
    "reference_models.resnet": _KAIMING,
    "torchvision.models.vgg": {**_KAIMING, **_NO_BIAS, **_PLAIN_HEAD},
    "torchvision.models.mobilenetv2": {**_KAIMING, **_NO_BIAS, **_PLAIN_HEAD},
    "torchvision.models.mobilenetv3": {**_KAIMING, **_NO_BIAS, **_PLAIN_HEAD},
    "torchvision.models.regnet": {**_KAIMING, **_PLAIN_HEAD},
    "torchvision.models.densenet": {("Conv2d", "weight"): KAIMING_IN, ("Linear", "bias"): ZEROS},
    "torchvision.models.efficientnet": {
        **_KAIMING,
        **_NO_BIAS,
        ("Linear", "weight"): Initialiser("uniform within 1 / sqrt(out_features)", "uniform", 3**-0.5, "out"),
        ("Linear", "bias"): ZEROS,
    },
    "torchvision.models.mnasnet": {
        **_KAIMING,
        **_NO_BIAS,
        ("Linear", "weight"): Initialiser(
            "kaiming_uniform_(mode='fan_out', nonlinearity='sigmoid')", "uniform", 1.0, "out"
        ),
        ("Linear", "bias"): ZEROS,
    },
    "torchvision.models.convnext": {
        ("Conv2d", "weight"): _CONVNEXT,
        ("Conv2d", "bias"): ZEROS,
        ("Linear", "weight"): _CONVNEXT,
        ("Linear", "bias"): ZEROS,
        ("CNBlock", "layer_scale"): Initialiser("constant_(1e-6)", "constant", 1e-6),
    },
}
_TORCH_SAYS = "the reset_parameters of torch.nn.{}"


def declarations(model: nn.Module) -> Mapping[str, Declared]:
    """What is documented of each of a model's parameters and buffers, by qualified name.

    torch's modules are known by the names of their classes and their bases; what is not known is left out.
    """
    family = type(model).__module__
    rules = FAMILIES.get(family, {})
    found: dict[str, Declared] = {}
    for prefix, module in model.named_modules():
        kinds = [kind.__name__ for kind in type(module).__mro__]
        weight = getattr(module, "weight", None)
        for role, tensor in (*module._parameters.items(), *module._buffers.items()):
            name = f"{prefix}.{role}" if prefix else role
            if tensor is None:
                continue
            for kind in kinds:
                known = rules.get((kind, role)) or _TORCH.get((kind, role))
                if known is not None:
                    shape = tuple(weight.shape if role == "bias" and weight is not None else tensor.shape)
                    source = family if (kind, role) in rules else _TORCH_SAYS.format(kind)
                    found[name] = Declared(known.of(shape), known.name, source, shape)
                    break
    return found
