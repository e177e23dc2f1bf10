from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from verifier import verify
from verifier.diagnose.repros.script import LONGEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from verifier.storage.saving import Verification

_BARE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("verifier", "reports", "reference_models", "safetensors", "torchvision", "tests")))
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def run(script: Path) -> tuple[int, str]:
    """How a script ends in a process where nothing but torch can be imported, and what it says."""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", _BARE, str(script)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout


class Net(nn.Module):
    """A small network with one of each: images (N, 3, 8, 8) to (N, 5) and (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.fc = nn.Linear(8, 5)
        self.aux = nn.Linear(8, 4)
        self.register_buffer("table", torch.linspace(-1.0, 1.0, 8))

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        y += x
        return self.act(y)  # type: ignore[no-any-return] # modules return anything

    def attend(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        q, k, v = (each.view(n, -1, 2, 4).transpose(1, 2) for each in self.qkv(x).chunk(3, dim=-1))
        shares = (q @ k.transpose(-2, -1) / 2.0).softmax(dim=-1)
        return (shares @ v).transpose(1, 2).reshape(n, -1, 8)

    def tokens(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def ends(self, x: Tensor) -> Any:
        return self.fc(x), self.aux(x)

    def forward(self, x: Tensor) -> Any:
        x = self.act(self.bn1(self.conv1(x)))
        x = self.join(x, self.bn2(self.conv2(x)))
        x = self.tokens(x)
        x = x + self.attend(self.norm(x))
        return self.ends(x.mean(1) + self.table)


@pytest.fixture(scope="module")
def baseline() -> Net:
    torch.manual_seed(0)
    net = Net().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.1, 0.3)
    return net


def images() -> Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class OtherStride(Net):
    def tokens(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False).flatten(2).transpose(1, 2)


class OtherJoin(Net):
    def join(self, x: Tensor, y: Tensor) -> Tensor:
        y += y  # the wrong tensor
        return self.act(y)  # type: ignore[no-any-return] # the same


class NoActivation(Net):
    def join(self, x: Tensor, y: Tensor) -> Tensor:
        return y + x


class OtherScale(Net):
    def attend(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        q, k, v = (each.view(n, -1, 2, 4).transpose(1, 2) for each in self.qkv(x).chunk(3, dim=-1))
        return F.scaled_dot_product_attention(q, k, v, scale=0.25).transpose(1, 2).reshape(n, -1, 8)


class OtherParts(Net):
    def attend(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        k, q, v = (each.view(n, -1, 2, 4).transpose(1, 2) for each in self.qkv(x).chunk(3, dim=-1))
        shares = (q @ k.transpose(-2, -1) / 2.0).softmax(dim=-1)
        return (shares @ v).transpose(1, 2).reshape(n, -1, 8)


class Halved(Net):
    def tokens(self, x: Tensor) -> Tensor:
        return x.half().to(x.dtype).flatten(2).transpose(1, 2)


class Overwriting(Net):
    def tokens(self, x: Tensor) -> Tensor:
        x[:, 0] = 0.5
        return x.flatten(2).transpose(1, 2)


class EndsExchanged(Net):
    def ends(self, x: Tensor) -> Any:
        return self.fc(x), self.aux(x.flip(1))


def planted(net: Net, change: Callable[[Any], object] | type[Net]) -> Net:
    """A copy of a network with a fault: another class, or something of it changed."""
    candidate = Net()
    candidate.load_state_dict(net.state_dict())
    candidate.eval()
    if isinstance(change, type):
        candidate.__class__ = change
    else:
        with torch.no_grad():
            change(candidate)
    return candidate


def _train_a_dropout(net: Any) -> None:
    net.norm = nn.Sequential(net.norm, nn.Dropout(0.5).train())


FAULTS: dict[str, Callable[[Any], object] | type[Net]] = {
    "eps": lambda net: setattr(net.bn2, "eps", 1e-3),
    "weight": lambda net: net.conv2.weight.mul_(1.001),
    "bias": lambda net: setattr(net.qkv, "bias", None),
    "padding": lambda net: setattr(net.conv2, "padding_mode", "circular"),
    "activation": lambda net: setattr(net, "act", nn.LeakyReLU(0.01)),
    "pooling": OtherStride,
    "wiring": OtherJoin,
    "missing": NoActivation,
    "scale": OtherScale,
    "parts": OtherParts,
    "cast": Halved,
    "overwritten": Overwriting,
    "ends": EndsExchanged,
    "constant": lambda net: net.table.add_(0.01),
    "dropout": _train_a_dropout,
}


def verified(baseline: Net, fault: str, directory: Path, **options: Any) -> Verification:
    weights = "as-is" if fault in {"weight", "constant"} else "transfer"
    return verify(
        baseline, planted(baseline, FAULTS[fault]), images(), weights=weights, repro=directory, **options
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_each_family_is_shown_with_torch_alone(baseline: Net, fault: str, tmp_path: Path) -> None:
    found = verified(baseline, fault, tmp_path / "repros")
    scripts = sorted((tmp_path / "repros").glob("*.py"))
    assert scripts, found.notes
    assert not any("has no script" in note for note in found.notes), found.notes
    for script in scripts[:1]:
        text = script.read_text()
        print(text)
        assert len(text.splitlines()) <= LONGEST
        code, said = run(script)
        assert code == 1
        wrong, right, allowed = map(
            float, re.findall(r"(?:candidate|baseline|allowed) (\S+?)(?:,|$)", said.strip())
        )
        assert right <= allowed < wrong
