"""The paper's networks written from scratch: the candidates the verifier checks by default.

Nothing here imports more than torch, and nothing here is copied from the baseline it is compared with: names,
structure and style are this package's own, the function is meant to be the same.

    import reference_models

    reference_models.list()                                  # the names, sorted
    model = reference_models.get("resnet50")(num_classes=10)
"""

from __future__ import annotations

from reference_models.blocks import BasicBlock, Bottleneck
from reference_models.cifar import CifarResNet
from reference_models.registry import (
    DuplicateModelError,
    ModelEntry,
    UnknownModelError,
    get,
    list,  # noqa: A004 - read as `reference_models.list()`
    register,
)
from reference_models.resnet import ResNet

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "CifarResNet",
    "DuplicateModelError",
    "ModelEntry",
    "ResNet",
    "UnknownModelError",
    "get",
    "list",
    "register",
]
