"""What an alignment costs as networks grow: `python tests/benchmarks/alignment.py`.

Residual chains of 100 to 10,000 sites against a rewrite with other names, other definition order and swapped
operands; once of the same operators, once with every block from different ones, so that weights are matched by
where the dataflow meets them. Time near n log n keeps the last column flat.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn

from verifier.align import align
from verifier.graph import Graph, record

WIDTH = 4
SIZES = (100, 300, 1000, 3000, 10000)


class Chain(nn.Module):
    """Residual blocks of two linear layers: 5 sites a block."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(N, WIDTH) to the same shape."""
        for first, second in zip(self.first, self.second, strict=True):
            x = torch.relu(x + second(torch.relu(first(x))))
        return x


class Renamed(nn.Module):
    """The same operators: modules of other names, defined from the last to the first, operands swapped."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(N, WIDTH) to the same shape."""
        for up, down in zip(reversed(self.up), reversed(self.down), strict=True):
            x = torch.relu(down(torch.relu(up(x))) + x)
        return x


class Rebuilt(nn.Module):
    """Other operators: weights stored (in, out), a product and a sum, a clamp and a maximum."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        shapes = {"w2": (2 * WIDTH, WIDTH), "b2": (WIDTH,), "w1": (WIDTH, 2 * WIDTH), "b1": (2 * WIDTH,)}
        for name, shape in shapes.items():
            drawn = (nn.Parameter(torch.randn(shape)) for _ in range(blocks))
            self.register_module(name, nn.ParameterList(drawn))

    def forward(self, x: Tensor) -> Tensor:
        """(N, WIDTH) to the same shape."""
        parts = [list(self.get_submodule(name).parameters()) for name in ("w1", "b1", "w2", "b2")]
        for w1, b1, w2, b2 in zip(*parts, strict=True):
            y = torch.matmul(torch.clamp(torch.addmm(b1, x, w1), min=0), w2) + b2
            x = torch.clamp(y + x, min=0)
        return x


def graph(model: nn.Module) -> Graph:
    """The graph of one forward pass."""
    with torch.no_grad():
        return record(model.eval(), (torch.ones(1, WIDTH),), {})


def main() -> None:
    """Time the alignment of chains of growing length and print time per site and per n log n."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    for title, rewrite in (("same operators", Renamed), ("different operators", Rebuilt)):
        print(f"\nResidual chains against a rewrite, {title}: best of {rounds}")
        for size in SIZES:
            one, other = graph(Chain(size // 5)), graph(rewrite(size // 5))
            seconds = []
            for _ in range(rounds):
                started = time.perf_counter()
                found = align(one, other)
                seconds.append(time.perf_counter() - started)
            count = len(one.comparable)
            best = min(seconds)
            print(
                f"  {count:6} and {len(other.comparable):6} sites   {best:8.3f} s   "
                f"{1e6 * best / count:7.1f} us a site   {1e9 * best / (count * math.log2(count)):8.0f} ns / (n log n)"
                f"   paired {len(found.pairs)}, tensors {len(found.parameters)} of {len(other.tensors)}"
                f"{', rebuilt' if found.rebuilt else ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
