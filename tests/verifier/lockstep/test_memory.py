"""What the C library keeps of freed memory while models run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import copy, sys
from pathlib import Path
import torch
from torch import nn
from verifier import verify
torch.manual_seed(0)
layers = (layer for _ in range(int(sys.argv[1])) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()))
model = nn.Sequential(*layers).eval()
print(verify(model, copy.deepcopy(model), torch.randn(8, 8, 96, 96), weights="as-is").verdict)
print(Path("/proc/self/status").read_text())
"""


def peak(layers: int) -> int:
    """Resident bytes of a process that verifies so many convolutions, at the most."""
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(layers)], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("match")
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", run.stdout)
    return int(found) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is Linux's")
def test_a_deep_model_takes_no_more_memory_with_every_layer() -> None:
    shallow, deep = peak(20), peak(200)
    tensors = 2 * 360 * 8 * 8 * 96 * 96 * 4  # what both models make in the layers that it has more
    assert deep - shallow < tensors / 4
