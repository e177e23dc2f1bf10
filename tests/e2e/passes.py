"""A small language model in two implementations, each with a loop that records it: `passes.py NAME FILE`."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import verifier

WIDTH, HEADS, WORDS, LENGTH = 32, 4, 61, 12


class Block(nn.Module):
    """Attention and two layers, with torch's fused operators."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        split = self.mix(self.norm(x)).unflatten(-1, (3, HEADS, -1))
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind()
        return q, k, v

    def attended(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        found = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return found.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.out(self.attended(x))
        y: Tensor = x + self.down(F.gelu(self.up(self.other(x))))
        return y


class ByHand(Block):
    """The same with attention written out."""

    factor = (WIDTH // HEADS) ** -0.5

    def attended(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        scores = (q * self.factor) @ k.transpose(-1, -2)
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        found: Tensor = scores.masked_fill(ahead, float("-inf")).softmax(-1) @ v
        return found.transpose(1, 2).reshape(x.shape)


class Faulty(ByHand):
    """And scaled by another number than heads are wide."""

    factor = WIDTH**-0.5


class Model(nn.Module):
    def __init__(self, kind: type[Block]) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(kind() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.norm(x) @ self.words.weight.T
        return found


def serve(name: str, path: str) -> None:
    """An engine of its own: it makes the model, draws what is asked, and calls it as it likes."""
    kind = {"faulty": Faulty, "by_hand": ByHand}.get(name, Block)
    model: nn.Module = Model(kind).eval()
    if name == "compiled":
        model = torch.compile(model, backend="aot_eager")  # type: ignore[assignment]
    asked = torch.Generator().manual_seed(6)
    with torch.inference_mode(), verifier.recording(path, model):
        for _ in range(3):
            model(torch.randint(WORDS, (2, LENGTH), generator=asked))


def train(path: str) -> None:
    """A trainer: three steps, of which the first two are recorded."""
    model = Model(Block)
    rule = torch.optim.AdamW(model.parameters(), 1e-3)
    asked = torch.Generator().manual_seed(6)
    with verifier.recording(path, model, passes=2):
        for _ in range(3):
            ids = torch.randint(WORDS, (2, LENGTH), generator=asked)
            loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            rule.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            rule.step()


if __name__ == "__main__":
    what, where = sys.argv[1:]
    if what == "trained":
        train(where)
    else:
        serve(what, where)
