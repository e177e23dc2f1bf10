"""What the bits of a training depend on besides what was asked for: device, threads, torch and its settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verifier.records import Environment

# They choose what is told by name anyway: the device, and how many threads there are.
_TOLD_OTHERWISE = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_SHOWN = 3


def surroundings(environment: Environment, device: str) -> dict[str, str]:
    """What may change the bits of a training on `device`, by name."""
    found = {"torch": str(torch.__version__)}
    settings = {name: value for name, value in environment.flags.items() if name not in _TOLD_OTHERWISE}
    if device == "cpu":
        found |= {"processor": environment.processor, "threads": str(environment.threads)}
        return found | {name: value for name, value in settings.items() if not re.search("cuda|cudnn", name)}
    found["device"] = torch.cuda.get_device_name(device)
    found |= {name: environment.packages[name] for name in ("cuda", "cudnn") if name in environment.packages}
    return found | {
        name: value for name, value in settings.items() if name not in ("threads", "cpu capability")
    }


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In what two surroundings differ, as a part of a sentence; empty where they do not."""
    names = [name for name in {**now, **then} if then.get(name) != now.get(name)]
    told = [f"{name} {now.get(name, 'not set')} (was {then.get(name, 'not set')})" for name in names[:_SHOWN]]
    more = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*told, *more])
