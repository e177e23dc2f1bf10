"""How large a network is: parameters, multiply-adds, layers and sites, counted without computing a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from verifier.environment import preserved
from verifier.graph import record

if TYPE_CHECKING:
    from reference_models import ModelEntry


@dataclass(frozen=True, slots=True)
class Size:
    """What was counted.

    Attributes:
        parameters: Learnable numbers.
        gflops: 1e9 multiply-adds of convolutions and matrix products for one image of the size the network is for.
        depth: Convolutions and linear layers on the main path: all but those in a shortcut or in an attention.
        sites: Operators whose tensors are compared.
    """

    parameters: int
    gflops: float
    depth: int
    sites: int


def measure(entry: ModelEntry) -> Size:
    """Build the network on torch's `meta` device, where tensors have shapes and no values, and count."""
    with preserved(), torch.no_grad():
        with torch.device("meta"):
            model = entry().eval()
        image = torch.empty(1, 3, entry.image_size, entry.image_size, device="meta")
        with FlopCounterMode(display=False) as counter:
            model(image)
        return Size(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            gflops=counter.get_total_flops() / 2e9,  # the counter counts a multiply-add as two operations
            depth=sum(
                isinstance(module, nn.Conv2d | nn.Linear)
                and not {"shortcut", "attention"} & {*name.split(".")}
                for name, module in model.named_modules()
            ),
            sites=len(record(model, (image,), {}).comparable),
        )
